package api

import (
	"context"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"

	"tweedle/edges/store"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// stateService is spacemesh.v1.GlobalStateService.
type stateService struct {
	spacemesh.UnimplementedGlobalStateServiceServer
	*backend
}

// What can be asked of an account, and of the state.
const (
	flagReceipts = uint32(spacemesh.AccountDataFlag_ACCOUNT_DATA_FLAG_TRANSACTION_RECEIPT)
	flagRewards  = uint32(spacemesh.AccountDataFlag_ACCOUNT_DATA_FLAG_REWARD)
	flagAccounts = uint32(spacemesh.AccountDataFlag_ACCOUNT_DATA_FLAG_ACCOUNT)
	flagHash     = uint32(spacemesh.GlobalStateDataFlag_GLOBAL_STATE_DATA_FLAG_GLOBAL_STATE_HASH)
)

// GlobalStateHash returns the root over all accounts, and after which layer.
func (s stateService) GlobalStateHash(context.Context, *spacemesh.GlobalStateHashRequest) (*spacemesh.GlobalStateHashResponse, error) {
	last, err := s.lastApplied()
	if err != nil {
		return nil, s.fail(err)
	}
	return &spacemesh.GlobalStateHashResponse{
		Response: &spacemesh.GlobalStateHash{RootHash: last.StateRoot[:], Layer: layerNumber(last.Layer)},
	}, nil
}

// Account returns an account now, and as it will be when its waiting
// transactions are executed.
func (s stateService) Account(ctx context.Context, req *spacemesh.AccountRequest) (*spacemesh.AccountResponse, error) {
	a, err := s.account(req.AccountId)
	if err != nil {
		return nil, err
	}
	wrapper, err := s.wrapper(ctx, a)
	if err != nil {
		return nil, s.fail(err)
	}
	return &spacemesh.AccountResponse{AccountWrapper: wrapper}, nil
}

func (s stateService) wrapper(ctx context.Context, a types.Address) (*spacemesh.Account, error) {
	now, err := s.tip(a)
	if err != nil {
		return nil, err
	}
	nonce, balance, err := s.Node.Projected(ctx, a)
	if err != nil {
		return nil, err
	}
	return &spacemesh.Account{
		AccountId:      s.accountID(a),
		StateCurrent:   &spacemesh.AccountState{Counter: now.NextNonce, Balance: amount(now.Balance)},
		StateProjected: &spacemesh.AccountState{Counter: nonce, Balance: amount(balance)},
	}, nil
}

func (s stateService) dataFilter(f *spacemesh.AccountDataFilter) (types.Address, uint32, error) {
	const all = flagReceipts | flagRewards | flagAccounts
	if f == nil {
		return types.Address{}, 0, invalid("filter is missing")
	}
	if f.AccountDataFlags&all == 0 || f.AccountDataFlags&^all != 0 {
		return types.Address{}, 0, invalid("filter.account_data_flags is %d: add up 1 for receipts, 2 for rewards and 4 for the account", f.AccountDataFlags)
	}
	a, err := s.account(f.AccountId)
	return a, f.AccountDataFlags, err
}

func receiptData(r vm.Result) *spacemesh.AccountData {
	return &spacemesh.AccountData{Datum: &spacemesh.AccountData_Receipt{Receipt: receipt(r)}}
}

func rewardData(r *spacemesh.Reward) *spacemesh.AccountData {
	return &spacemesh.AccountData{Datum: &spacemesh.AccountData_Reward{Reward: r}}
}

func accountData(a *spacemesh.Account) *spacemesh.AccountData {
	return &spacemesh.AccountData{Datum: &spacemesh.AccountData_AccountWrapper{AccountWrapper: a}}
}

// AccountDataQuery pages through the receipts of an account, then its rewards,
// then the account itself.
func (s stateService) AccountDataQuery(ctx context.Context, req *spacemesh.AccountDataQueryRequest) (*spacemesh.AccountDataQueryResponse, error) {
	a, flags, err := s.dataFilter(req.Filter)
	if err != nil {
		return nil, err
	}
	var out spacemesh.AccountDataQueryResponse
	var sections []section
	if flags&flagReceipts != 0 {
		filter := store.TxFilter{Address: a}
		sections = append(sections, section{
			func() (int, error) { return s.Store.CountAddressTransactions(filter) },
			func(offset, limit int) error {
				txs, err := s.Store.AddressTransactions(filter, offset, limit)
				for _, tx := range txs {
					out.AccountItem = append(out.AccountItem, receiptData(tx.Result))
				}
				return err
			},
		})
	}
	if flags&flagRewards != 0 {
		sections = append(sections, section{
			func() (int, error) { return s.Store.CountCoinbaseRewards(a) },
			func(offset, limit int) error {
				rewards, err := s.Store.CoinbaseRewards(a, offset, limit)
				for _, w := range rewards {
					out.AccountItem = append(out.AccountItem, rewardData(s.reward(w.Reward, w.Layer, w.Smesher)))
				}
				return err
			},
		})
	}
	if flags&flagAccounts != 0 {
		sections = append(sections, section{
			func() (int, error) { return 1, nil },
			func(int, int) error {
				wrapper, err := s.wrapper(ctx, a)
				out.AccountItem = append(out.AccountItem, accountData(wrapper))
				return err
			},
		})
	}
	out.TotalResults, err = paged(sections, req.Offset, req.MaxResults)
	return &out, s.fail(err)
}

// AccountDataStream sends what layers that are applied from now on do to an
// account.
func (s stateService) AccountDataStream(req *spacemesh.AccountDataStreamRequest, out grpc.ServerStreamingServer[spacemesh.AccountDataStreamResponse]) error {
	a, flags, err := s.dataFilter(req.Filter)
	if err != nil {
		return err
	}
	return s.Events.follow(out.Context(), nil, func(ev Event) error {
		applied, ok := ev.(Applied)
		if !ok {
			return nil
		}
		data, err := s.effects(out.Context(), applied, flags, func(touched types.Address) bool { return touched == a })
		for _, d := range data {
			if err := out.Send(&spacemesh.AccountDataStreamResponse{Datum: d}); err != nil {
				return err
			}
		}
		return s.fail(err)
	})
}

// effects returns what a layer did to the accounts that are wanted: receipts,
// rewards, accounts.
func (s stateService) effects(ctx context.Context, ev Applied, flags uint32, wanted func(types.Address) bool) ([]*spacemesh.AccountData, error) {
	var data []*spacemesh.AccountData
	for _, r := range ev.Outcome.Results {
		if flags&flagReceipts != 0 && r.Status != vm.Ineffective && anyOf(r.Addresses, wanted) {
			data = append(data, receiptData(r))
		}
	}
	for _, w := range ev.Outcome.Rewards {
		if flags&flagRewards == 0 || !wanted(w.Coinbase) {
			continue
		}
		atx, err := s.Store.ATXRecord(w.ATX)
		if err != nil {
			return data, err
		}
		data = append(data, rewardData(s.reward(w, ev.Layer, atx.Smesher)))
	}
	for _, e := range ev.Outcome.Changed {
		if flags&flagAccounts == 0 || !wanted(e.Address) {
			continue
		}
		wrapper, err := s.wrapper(ctx, e.Address)
		if err != nil {
			return data, err
		}
		data = append(data, accountData(wrapper))
	}
	return data, nil
}

func anyOf(addresses []types.Address, wanted func(types.Address) bool) bool {
	for _, a := range addresses {
		if wanted(a) {
			return true
		}
	}
	return false
}

// GlobalStateStream sends what layers that are applied from now on do to the
// state.
func (s stateService) GlobalStateStream(req *spacemesh.GlobalStateStreamRequest, out grpc.ServerStreamingServer[spacemesh.GlobalStateStreamResponse]) error {
	const all = flagReceipts | flagRewards | flagAccounts | flagHash
	flags := req.GlobalStateDataFlags
	if flags&all == 0 || flags&^all != 0 {
		return invalid("global_state_data_flags is %d: add up 1 for receipts, 2 for rewards, 4 for accounts and 8 for the state hash", flags)
	}
	return s.Events.follow(out.Context(), nil, func(ev Event) error {
		applied, ok := ev.(Applied)
		if !ok {
			return nil
		}
		data, err := s.effects(out.Context(), applied, flags, func(types.Address) bool { return true })
		if err != nil {
			return s.fail(err)
		}
		for _, d := range data {
			if err := out.Send(&spacemesh.GlobalStateStreamResponse{Datum: global(d)}); err != nil {
				return err
			}
		}
		if flags&flagHash == 0 {
			return nil
		}
		root := applied.Outcome.State.Root()
		hash := &spacemesh.GlobalStateHash{RootHash: root[:], Layer: layerNumber(applied.Layer)}
		return out.Send(&spacemesh.GlobalStateStreamResponse{
			Datum: &spacemesh.GlobalStateData{Datum: &spacemesh.GlobalStateData_GlobalState{GlobalState: hash}},
		})
	})
}

// global turns an account's datum into one of the state.
func global(d *spacemesh.AccountData) *spacemesh.GlobalStateData {
	switch d := d.Datum.(type) {
	case *spacemesh.AccountData_Receipt:
		return &spacemesh.GlobalStateData{Datum: &spacemesh.GlobalStateData_Receipt{Receipt: d.Receipt}}
	case *spacemesh.AccountData_Reward:
		return &spacemesh.GlobalStateData{Datum: &spacemesh.GlobalStateData_Reward{Reward: d.Reward}}
	case *spacemesh.AccountData_AccountWrapper:
		return &spacemesh.GlobalStateData{Datum: &spacemesh.GlobalStateData_AccountWrapper{AccountWrapper: d.AccountWrapper}}
	}
	panic("api: a datum of an unknown kind")
}
