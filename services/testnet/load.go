package testnet

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc/codes"

	"tweedle/base/words"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// load sends real transactions at a steady rate, so that balances change: the
// faucet funds a few accounts, which spawn and then pay each other.
type load struct {
	l    *launcher
	sent atomic.Uint64 // accepted by a node
	// All following fields are owned by run.
	prober   *prober
	accounts []*account // the faucet first
	turn     int        // of nodes
	failing  time.Time  // since when no node accepts anything; zero: all is well
	noted    bool
}

// account is what the load knows of one of its accounts.
type account struct {
	signer  *signing.Signer
	addr    types.Address
	text    string // the address, written
	next    uint64 // nonce of the next transaction
	applied uint64 // first nonce that is not applied yet
	balance uint64 // smidge
	spawned bool
	doubt   bool      // a transaction was refused: ask before the next one
	moved   time.Time // when applied last grew, or there was nothing to wait for
	funded  time.Time // when the faucet was last asked to fund it
}

// The load's own limits.
const (
	loadAccounts = 8
	loadFunds    = 1000 * vm.Smidges
	maxSpend     = vm.Smidges / 1000
	loadGasPrice = 1
	// maxInFlight transactions of an account wait to be applied.
	maxInFlight = 24
	// stuckLayers after which what no pool holds any more counts as lost.
	stuckLayers = 12
	// fundingTime after which the faucet tries to fund an account again.
	fundingTime = 30 * time.Second
	submitLimit = 2 * time.Second
	noteAfter   = 15 * time.Second
)

func newLoad(l *launcher) *load { return &load{l: l} }

func (g *load) sentSoFar() uint64 { return g.sent.Load() }

// start sends in the background until the returned function is called.
func (g *load) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.run(ctx); err != nil && ctx.Err() == nil {
			g.l.emit.event(Note{Text: "no transactions are sent: " + words.Of(err)})
		}
	}()
	return func() { cancel(); <-done }
}

func (g *load) run(ctx context.Context) error {
	if g.l.opts.TxRate == 0 {
		return nil
	}
	if err := g.open(); err != nil {
		return err
	}
	g.prober = newProber(g.l.dir.directory)
	defer g.prober.close()
	sched := g.l.plan.network.schedule()
	// The first transactions wait in the pools for the first block.
	begin := sched.LayerStart(sched.FirstBallotLayer() - 1)
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(time.Until(begin)):
	}
	send := time.NewTicker(time.Duration(float64(time.Second) / g.l.opts.TxRate))
	defer send.Stop()
	sync := time.NewTicker(sched.LayerDuration)
	defer sync.Stop()
	g.sync(ctx, time.Now())
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-sync.C:
			g.sync(ctx, now)
		case now := <-send.C:
			if a, tx := g.choose(now); a != nil {
				g.submit(ctx, a, tx, now)
			}
		}
	}
}

// open derives the accounts from the faucet's key: whoever has that key has
// them all.
func (g *load) open() error {
	n := g.l.plan.network
	faucet, err := g.l.dir.wallet(faucetName, n)
	if err != nil {
		return err
	}
	seed := faucet.seed
	for i := range loadAccounts + 1 {
		s, err := signing.NewSigner(seed, n.ID())
		if err != nil {
			return err
		}
		addr := vm.WalletAddress(s.NodeID())
		g.accounts = append(g.accounts, &account{signer: s, addr: addr, text: addr.Bech32(n.params.HRP), doubt: true})
		sum := sha512.Sum512_256(fmt.Appendf(faucet.seed[:len(faucet.seed):len(faucet.seed)], "load %d", i))
		seed = sum[:]
	}
	return nil
}

// choose makes the next transaction, or none if everybody must wait.
func (g *load) choose(now time.Time) (*account, types.Transaction) {
	faucet := g.accounts[0]
	for _, a := range g.accounts {
		switch {
		case a.doubt:
		case !a.spawned && a.next == 0 && a.balance > 0:
			return a.use(now, vm.Spawn(a.signer, 0, loadGasPrice))
		case a.balance == 0 && faucet.ready() && faucet.next < faucet.applied+loadAccounts && now.Sub(a.funded) > fundingTime:
			a.funded = now
			return faucet.use(now, vm.Spend(faucet.signer, a.addr, loadFunds, faucet.next, loadGasPrice))
		}
	}
	order := rand.Perm(len(g.accounts))
	for i, n := range order {
		if from := g.accounts[n]; from.ready() {
			to := g.accounts[order[(i+1)%len(order)]]
			return from.use(now, vm.Spend(from.signer, to.addr, 1+rand.Uint64N(maxSpend), from.next, loadGasPrice))
		}
	}
	return nil, nil
}

// ready tells whether the account may spend now.
func (a *account) ready() bool {
	return a.spawned && !a.doubt && a.next < a.applied+maxInFlight && a.balance > maxSpend*maxInFlight
}

// use counts a transaction of the account.
func (a *account) use(now time.Time, tx types.Transaction) (*account, types.Transaction) {
	if a.next == a.applied {
		a.moved = now
	}
	a.next++
	return a, tx
}

// submit hands a transaction to one of the nodes, in turns.
func (g *load) submit(ctx context.Context, a *account, tx types.Transaction, now time.Time) {
	err := g.submitTo(ctx, g.node(), tx)
	if err == nil {
		g.sent.Add(1)
		if g.noted {
			g.l.emit.event(Note{Text: "transactions are accepted again"})
		}
		g.failing, g.noted = time.Time{}, false
		return
	}
	a.doubt = true
	if g.failing.IsZero() {
		g.failing = now
	}
	if !g.noted && now.Sub(g.failing) > noteAfter && ctx.Err() == nil {
		g.noted = true
		g.l.emit.event(Note{Text: fmt.Sprintf("no transaction was accepted for %v: %v", noteAfter, err)})
	}
}

var errNoNode = errors.New("no node runs") //nolint:gochecknoglobals // a sentinel

// node returns the API address of the next node that runs and keeps up.
func (g *load) node() string {
	nodes := g.l.upToDate()
	if len(nodes) == 0 {
		return ""
	}
	g.turn++
	return nodes[g.turn%len(nodes)]
}

func (g *load) submitTo(ctx context.Context, addr string, tx types.Transaction) error {
	if addr == "" {
		return errNoNode
	}
	conn, err := g.prober.dial(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, submitLimit)
	defer cancel()
	res, err := spacemesh.NewTransactionServiceClient(conn).SubmitTransaction(ctx, &spacemesh.SubmitTransactionRequest{Transaction: tx})
	if err != nil {
		return err
	}
	if s := res.GetStatus(); s.GetCode() != int32(codes.OK) {
		return fmt.Errorf("refused: %s", s.GetMessage())
	}
	switch state := res.GetTxstate().GetState(); state {
	case spacemesh.TransactionState_TRANSACTION_STATE_MEMPOOL, spacemesh.TransactionState_TRANSACTION_STATE_MESH,
		spacemesh.TransactionState_TRANSACTION_STATE_PROCESSED:
		return nil
	default:
		return fmt.Errorf("refused: %v", state)
	}
}

// sync asks a node what has become of the accounts. What was sent and not
// applied for long is given up, so that its nonce is used again.
func (g *load) sync(ctx context.Context, now time.Time) {
	addr := g.node()
	if addr == "" {
		return
	}
	conn, err := g.prober.dial(addr)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, submitLimit)
	defer cancel()
	client := spacemesh.NewGlobalStateServiceClient(conn)
	stuck := stuckLayers * g.l.plan.network.params.LayerDuration
	for _, a := range g.accounts {
		res, err := client.Account(ctx, &spacemesh.AccountRequest{AccountId: &spacemesh.AccountId{Address: a.text}})
		if err != nil {
			return // another node is asked next time
		}
		w := res.GetAccountWrapper()
		a.learn(w.GetStateCurrent(), w.GetStateProjected(), now, stuck)
	}
}

// learn takes in an account's state as a node has it: applied, and with what
// waits in that node's pool.
func (a *account) learn(current, projected *spacemesh.AccountState, now time.Time, stuck time.Duration) {
	if c := current.GetCounter(); c > a.applied {
		a.applied, a.moved = c, now
	}
	a.balance = current.GetBalance().GetValue()
	a.spawned = a.applied > 0
	waits := max(a.applied, projected.GetCounter())
	lost := a.next > waits && now.Sub(a.moved) > stuck
	if a.next < waits || lost || a.doubt {
		a.next, a.moved = waits, now
	}
	a.doubt = false
}
