package vm

import (
	"fmt"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"tweedle/values/types"
)

// Printed by the reference's economics module v0.1.4 (decimal arithmetic of
// 34 digits): what has been issued through a layer, and by it.
func TestSubsidyIsThatOfTheReference(t *testing.T) {
	p := MainnetParams()
	for _, v := range []struct {
		after            uint32
		through, subsidy uint64
	}{
		{0, 477618397593, 477618397593},
		{1, 955236693799, 477618296206},
		{2, 1432854888620, 477618194821},
		{99, 47761337900253, 477608360447},
		{100, 48238946159315, 477608259062},
		{4031, 1924933698054853, 477209883893},
		{8063, 3848220565113304, 476801618388},
		{100000, 47258948463689552, 467586610967},
		{1051199, 449999617905200816, 382094880293},
		{1051200, 450000000000000000, 382094799184},
		{3265328, 1125000106932130093, 238809226791},
		{10000000, 1980670207293862126, 57171951699},
		{50000000, 2249944704182837371, 11737913},
		{100000000, 2249999998641054202, 289},
	} {
		if got := p.Economics.issued(uint64(v.after) + 1); got != v.through {
			t.Errorf("through layer %d: %d, want %d", v.after, got, v.through)
		}
		if got := p.Subsidy(p.EffectiveGenesis + types.Layer(v.after)); got != v.subsidy {
			t.Errorf("layer %d: %d, want %d", v.after, got, v.subsidy)
		}
	}
	if p.Subsidy(p.EffectiveGenesis-1) != 0 {
		t.Error("something is issued before genesis")
	}
}

func TestIssuanceNeverExceedsItsTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Economics{
			TotalSubsidy: rapid.Uint64().Draw(t, "total"),
			FifthLayers:  rapid.Uint32Range(1, math.MaxUint32).Draw(t, "fifth"),
		}
		n := rapid.Uint64Range(0, min(210*uint64(e.FifthLayers), math.MaxUint32)).Draw(t, "layers")
		a, b := e.issued(n), e.issued(n+1)
		if a > b || b > e.TotalSubsidy {
			t.Fatalf("issued %d, then %d of %d", a, b, e.TotalSubsidy)
		}
		left := float64(e.TotalSubsidy) * math.Pow(0.8, float64(n)/float64(e.FifthLayers))
		if got := float64(e.TotalSubsidy - a); math.Abs(got-left) > 1+1e-9*float64(e.TotalSubsidy) {
			t.Fatalf("%g is left, floating point says %g", got, left)
		}
	})
}

func TestTheLastLayerOfTimeCanBeApplied(t *testing.T) {
	for _, fifth := range []uint32{1, 105_120} {
		e := Economics{TotalSubsidy: math.MaxUint64, FifthLayers: fifth}
		if got := e.issued(math.MaxUint32) - e.issued(math.MaxUint32-1); got != 0 {
			t.Errorf("%d issued at the end of time", got)
		}
	}
	// Where the curve is cut off it has less than one smidge to give.
	if left := math.MaxUint64 * math.Pow(0.8, spentFifths); left >= 1 {
		t.Errorf("%g is left", left)
	}
	if (Economics{FifthLayers: 1}).issued(math.MaxUint32) != 0 {
		t.Error("something of nothing is issued")
	}
}

func BenchmarkSubsidy(b *testing.B) {
	p := MainnetParams()
	for i := 0; b.Loop(); i++ {
		p.Subsidy(p.EffectiveGenesis + types.Layer(i%4_000_000))
	}
}

// slowSplit is the published rule with exact fractions.
func slowSplit(shares []Share, amount uint64) []uint64 {
	sum := new(big.Rat)
	for _, s := range shares {
		sum.Add(sum, new(big.Rat).SetFrac(new(big.Int).SetUint64(s.Num), new(big.Int).SetUint64(s.Den)))
	}
	paid := make([]uint64, len(shares))
	for i, s := range shares {
		r := new(big.Rat).SetFrac(new(big.Int).SetUint64(s.Num), new(big.Int).SetUint64(s.Den))
		r.Mul(r, new(big.Rat).SetInt(new(big.Int).SetUint64(amount)))
		r.Quo(r, sum)
		paid[i] = new(big.Int).Quo(r.Num(), r.Denom()).Uint64()
	}
	return paid
}

func TestRewardsAreSplitByWeightAndTheRestIsBurnt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var shares []Share
		for range rapid.IntRange(1, 10).Draw(t, "shares") {
			shares = append(shares, Share{
				Num: rapid.Uint64Range(1, 1<<40).Draw(t, "num"), Den: rapid.Uint64Range(1, 100).Draw(t, "den"),
			})
		}
		subsidy := rapid.Uint64Range(0, 1<<60).Draw(t, "subsidy")
		fees := rapid.Uint64Range(0, 1<<60).Draw(t, "fees")
		exact := slowSplit(shares, subsidy+fees)
		var sum uint64
		for i, r := range split(shares, subsidy, fees) {
			// A weight is rounded by 2^-64 of at least 1/100: never 2 smidges.
			if r.Total > exact[i]+1 || exact[i] > r.Total+1 || r.Subsidy > r.Total {
				t.Fatalf("share %d is paid %+v, exactly %d", i, r, exact[i])
			}
			sum += r.Total
		}
		if sum > subsidy+fees || subsidy+fees-sum > uint64(2*len(shares)) {
			t.Fatalf("%d paid of %d", sum, subsidy+fees)
		}
	})
}

// The rounding is protocol too: the rule of split, a step at a time.
func TestRewardsAreRoundedByTheirRule(t *testing.T) {
	of := func(v uint64) *big.Int { return new(big.Int).SetUint64(v) }
	number := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 3), rapid.Uint64Range(math.MaxUint64-3, math.MaxUint64))
	rapid.Check(t, func(t *rapid.T) {
		var shares []Share
		var weights []*big.Int
		sum := of(0)
		for range rapid.IntRange(0, 8).Draw(t, "shares") {
			s := Share{Num: number.Draw(t, "num"), Den: number.Draw(t, "den")}
			w := of(0)
			if s.Den != 0 {
				w.Lsh(of(s.Num), 64).Quo(w, of(s.Den))
			}
			shares, weights, sum = append(shares, s), append(weights, w), sum.Add(sum, w)
		}
		subsidy, fees := rapid.Uint64Range(0, 1<<63).Draw(t, "subsidy"), rapid.Uint64Range(0, 1<<63-1).Draw(t, "fees")
		for i, r := range split(shares, subsidy, fees) {
			want := Reward{}
			if sum.Sign() != 0 {
				total, part := of(subsidy+fees), of(subsidy)
				want.Total, want.Subsidy = total.Mul(total, weights[i]).Quo(total, sum).Uint64(), part.Mul(part, weights[i]).Quo(part, sum).Uint64()
			}
			if r != want {
				t.Fatalf("share %d of %v is paid %+v, want %+v", i, shares, r, want)
			}
		}
	})
}

func TestSharesOfNothingArePaidNothing(t *testing.T) {
	p := testParams()
	out := Apply(State{}, Block{Layer: 20, Rewards: []Share{{Den: 1}, {Num: 1}, {Num: 1, Den: 0}}}, p)
	if out.Burnt != out.Issued || out.Issued == 0 || out.State.Root() != (State{}).Root() {
		t.Errorf("%+v", out)
	}
	out = Apply(State{}, Block{Layer: 20, Rewards: []Share{{Num: 1}, {Coinbase: types.Address{9: 1}, Num: 7, Den: 3}}}, p)
	if out.Burnt != 0 || out.State.Account(types.Address{9: 1}).Balance != out.Issued {
		t.Errorf("%+v", out)
	}
}

// Golden values of whole blocks: half and quarters, thirds with a remainder.
func TestRewardsOfABlockAreFrozen(t *testing.T) {
	for name, tc := range map[string]struct {
		shares []Share
		want   string
	}{
		"half and quarters": {[]Share{{Num: 1, Den: 2}, {Num: 1, Den: 4}, {Num: 1, Den: 4}}, "[500 250 250]"},
		"thirds":            {[]Share{{Num: 1, Den: 3}, {Num: 1, Den: 3}, {Num: 1, Den: 3}}, "[333 333 333]"},
		"whole and a third": {[]Share{{Num: 1, Den: 1}, {Num: 1, Den: 3}}, "[750 249]"},
	} {
		var got []uint64
		for _, r := range split(tc.shares, 900, 100) {
			got = append(got, r.Total)
		}
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%s: %v, want %s", name, got, tc.want)
		}
	}
}

// A block stores the accounts that differ, and they differ where their leaves do.
func TestAccountsAreEqualWhenTheirLeavesAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) Account {
			few := rapid.Uint64Range(0, 1)
			return Account{
				NextNonce: few.Draw(t, name+" nonce"), Balance: few.Draw(t, name+" balance"),
				Template: types.Address{23: byte(few.Draw(t, name+" template"))}, State: rapid.SampledFrom([][]byte{nil, {}, {0}, {1}}).Draw(t, name+" state"),
			}
		}
		if a, b := draw("a"), draw("b"); a.equal(b) != (a.LeafHash() == b.LeafHash()) {
			t.Fatalf("%v and %v: equal %v", a, b, a.equal(b))
		}
	})
}
