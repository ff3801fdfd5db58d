package api

import (
	"context"
	"slices"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/edges/store"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// MaxLayersQuery is how many layers one query may ask for.
const MaxLayersQuery = 100

// meshService is spacemesh.v1.MeshService.
type meshService struct {
	spacemesh.UnimplementedMeshServiceServer
	*backend
}

func number(v uint64) *spacemesh.SimpleInt { return &spacemesh.SimpleInt{Value: v} }

func (s meshService) GenesisTime(context.Context, *spacemesh.GenesisTimeRequest) (*spacemesh.GenesisTimeResponse, error) {
	return &spacemesh.GenesisTimeResponse{Unixtime: number(uint64(s.Schedule.Genesis.Unix()))}, nil
}

func (s meshService) CurrentLayer(context.Context, *spacemesh.CurrentLayerRequest) (*spacemesh.CurrentLayerResponse, error) {
	return &spacemesh.CurrentLayerResponse{Layernum: layerNumber(s.Schedule.LayerAt(time.Now()))}, nil
}

func (s meshService) CurrentEpoch(context.Context, *spacemesh.CurrentEpochRequest) (*spacemesh.CurrentEpochResponse, error) {
	return &spacemesh.CurrentEpochResponse{Epochnum: &spacemesh.EpochNumber{Number: uint32(s.Schedule.EpochAt(time.Now()))}}, nil
}

func (s meshService) GenesisID(context.Context, *spacemesh.GenesisIDRequest) (*spacemesh.GenesisIDResponse, error) {
	return &spacemesh.GenesisIDResponse{GenesisId: s.Network[:]}, nil
}

func (s meshService) EpochNumLayers(context.Context, *spacemesh.EpochNumLayersRequest) (*spacemesh.EpochNumLayersResponse, error) {
	return &spacemesh.EpochNumLayersResponse{Numlayers: &spacemesh.LayerNumber{Number: s.Schedule.LayersPerEpoch}}, nil
}

// LayerDuration is in seconds, rounded down.
func (s meshService) LayerDuration(context.Context, *spacemesh.LayerDurationRequest) (*spacemesh.LayerDurationResponse, error) {
	return &spacemesh.LayerDurationResponse{Duration: number(uint64(s.Schedule.LayerDuration / time.Second))}, nil
}

// MaxTransactionsPerSecond is how many plain transfers fit into blocks.
func (s meshService) MaxTransactionsPerSecond(context.Context, *spacemesh.MaxTransactionsPerSecondRequest) (*spacemesh.MaxTransactionsPerSecondResponse, error) {
	gas, err := spendGas(s.VM)
	if err != nil {
		return nil, s.fail(err)
	}
	perLayer := float64(min(s.VM.BlockGasLimit/gas, types.MaxBlockTxs))
	return &spacemesh.MaxTransactionsPerSecondResponse{
		MaxTxsPerSecond: number(uint64(perLayer / s.Schedule.LayerDuration.Seconds())),
	}, nil
}

// AccountMeshDataQuery pages through the transactions of an account that were
// applied since a layer, those that wait, and the ATXs that reward it.
func (s meshService) AccountMeshDataQuery(_ context.Context, req *spacemesh.AccountMeshDataQueryRequest) (*spacemesh.AccountMeshDataQueryResponse, error) {
	a, flags, err := s.meshFilter(req.Filter)
	if err != nil {
		return nil, err
	}
	from := types.Layer(req.GetMinLayer().GetNumber())
	epoch := s.Schedule.EpochOf(from)
	var out spacemesh.AccountMeshDataQueryResponse
	var sections []section
	if flags&uint32(spacemesh.AccountMeshDataFlag_ACCOUNT_MESH_DATA_FLAG_TRANSACTIONS) != 0 {
		filter := store.TxFilter{Address: a, From: from}
		sections = append(sections, section{
			func() (int, error) { return s.Store.CountAddressTransactions(filter) },
			func(offset, limit int) error {
				txs, err := s.Store.AddressTransactions(filter, offset, limit)
				for _, tx := range txs {
					out.Data = append(out.Data, meshTransaction(&spacemesh.MeshTransaction{
						Transaction: s.stored(tx), LayerId: layerNumber(tx.Result.Layer),
					}))
				}
				return err
			},
		}, section{
			func() (int, error) { return s.Events.waiting.count(a), nil },
			func(offset, limit int) error {
				for _, tx := range s.Events.waiting.page(a, offset, limit) {
					out.Data = append(out.Data, meshTransaction(&spacemesh.MeshTransaction{Transaction: s.parsed(tx, 0)}))
				}
				return nil
			},
		})
	}
	if flags&uint32(spacemesh.AccountMeshDataFlag_ACCOUNT_MESH_DATA_FLAG_ACTIVATIONS) != 0 {
		sections = append(sections, section{
			func() (int, error) { return s.Store.CountCoinbaseATXs(a, epoch) },
			func(offset, limit int) error {
				atxs, err := s.Store.CoinbaseATXs(a, epoch, offset, limit)
				for _, atx := range atxs {
					out.Data = append(out.Data, s.meshActivation(atx))
				}
				return err
			},
		})
	}
	out.TotalResults, err = paged(sections, req.Offset, req.MaxResults)
	return &out, s.fail(err)
}

// meshFilter reads what to tell of which account.
func (s meshService) meshFilter(f *spacemesh.AccountMeshDataFilter) (types.Address, uint32, error) {
	const all = uint32(spacemesh.AccountMeshDataFlag_ACCOUNT_MESH_DATA_FLAG_TRANSACTIONS | spacemesh.AccountMeshDataFlag_ACCOUNT_MESH_DATA_FLAG_ACTIVATIONS)
	if f == nil {
		return types.Address{}, 0, invalid("filter is missing")
	}
	if f.AccountMeshDataFlags&all == 0 || f.AccountMeshDataFlags&^all != 0 {
		return types.Address{}, 0, invalid("filter.account_mesh_data_flags is %d: add up 1 for transactions and 2 for activations", f.AccountMeshDataFlags)
	}
	a, err := s.account(f.AccountId)
	return a, f.AccountMeshDataFlags, err
}

func meshTransaction(m *spacemesh.MeshTransaction) *spacemesh.AccountMeshData {
	return &spacemesh.AccountMeshData{Datum: &spacemesh.AccountMeshData_MeshTransaction{MeshTransaction: m}}
}

func (b *backend) meshActivation(a store.ATXRecord) *spacemesh.AccountMeshData {
	return &spacemesh.AccountMeshData{Datum: &spacemesh.AccountMeshData_Activation{Activation: b.activation(a)}}
}

// LayersQuery returns the layers of a range that have begun. Those that are
// not applied have only their number.
func (s meshService) LayersQuery(_ context.Context, req *spacemesh.LayersQueryRequest) (*spacemesh.LayersQueryResponse, error) {
	from, to := req.GetStartLayer().GetNumber(), req.GetEndLayer().GetNumber()
	switch {
	case req.StartLayer == nil || req.EndLayer == nil:
		return nil, invalid("start_layer and end_layer are needed")
	case from > to:
		return nil, invalid("start_layer %d is after end_layer %d", from, to)
	case to-from >= MaxLayersQuery:
		return nil, invalid("range has %d layers, at most %d are answered", uint64(to-from)+1, MaxLayersQuery)
	}
	var out spacemesh.LayersQueryResponse
	txs := 0
	for l := types.Layer(from); l <= min(types.Layer(to), s.Schedule.LayerAt(time.Now())); l++ {
		layer, err := s.layer(l)
		if err != nil {
			return nil, s.fail(err)
		}
		here := 0
		for _, block := range layer.Blocks {
			here += len(block.Transactions)
		}
		// One layer is always answered, or it could not be read at all.
		if txs > 0 && here > 0 && txs+here > s.Limits.Transactions {
			return nil, invalid("layers up to %v have more than %d transactions: ask for fewer layers", l, s.Limits.Transactions)
		}
		txs += here
		out.Layer = append(out.Layer, layer)
	}
	return &out, nil
}

// layer describes one layer. A layer without block has the state of the one
// before it. The mesh's own hash is not told: no client may depend on it yet.
func (b *backend) layer(n types.Layer) (*spacemesh.Layer, error) {
	out := &spacemesh.Layer{Number: layerNumber(n)}
	last, err := b.lastApplied()
	if err != nil || n > last.Layer {
		return out, err
	}
	out.Status = spacemesh.Layer_LAYER_STATUS_APPLIED
	l, err := b.Store.LayerBefore(n + 1)
	if err != nil {
		return out, ignoreNotFound(err) // before the first ballots there is no state
	}
	out.RootStateHash = l.StateRoot[:]
	if l.Layer != n || l.Block == types.EmptyBlock {
		return out, nil
	}
	txs, err := b.Store.LayerTransactions(n)
	if err != nil {
		return out, err
	}
	block := &spacemesh.Block{Id: l.Block[:]}
	for _, tx := range txs {
		block.Transactions = append(block.Transactions, b.stored(tx))
	}
	out.Blocks = []*spacemesh.Block{block}
	rewards, err := b.Store.LayerRewards(n)
	for _, w := range rewards {
		atx, err := b.Store.ATXRecord(w.ATX)
		if err != nil {
			return out, err
		}
		out.Activations = append(out.Activations, b.activation(atx))
	}
	return out, err
}

// AccountMeshDataStream sends new transactions of an account and new ATXs that
// reward it.
func (s meshService) AccountMeshDataStream(req *spacemesh.AccountMeshDataStreamRequest, out grpc.ServerStreamingServer[spacemesh.AccountMeshDataStreamResponse]) error {
	a, flags, err := s.meshFilter(req.Filter)
	if err != nil {
		return err
	}
	txs := flags&uint32(spacemesh.AccountMeshDataFlag_ACCOUNT_MESH_DATA_FLAG_TRANSACTIONS) != 0
	atxs := flags&uint32(spacemesh.AccountMeshDataFlag_ACCOUNT_MESH_DATA_FLAG_ACTIVATIONS) != 0
	return s.Events.follow(out.Context(), nil, func(ev Event) error {
		var datum *spacemesh.AccountMeshData
		switch ev := ev.(type) {
		case Accepted:
			if txs && slices.Contains(ev.Addresses(), a) {
				datum = meshTransaction(&spacemesh.MeshTransaction{Transaction: s.parsed(ev.Tx, 0)})
			}
		case Activated:
			if atxs && ev.Coinbase == a {
				datum = s.meshActivation(ev.ATXRecord)
			}
		}
		if datum == nil {
			return nil
		}
		return out.Send(&spacemesh.AccountMeshDataStreamResponse{Datum: datum})
	})
}

// touches tells whether a transaction names an account.
func touches(raw types.Transaction, a types.Address) bool {
	tx, err := vm.Parse(raw)
	return err == nil && (tx.Principal == a || tx.To == a)
}

// LayerStream sends every layer that is applied from now on.
func (s meshService) LayerStream(_ *spacemesh.LayerStreamRequest, out grpc.ServerStreamingServer[spacemesh.LayerStreamResponse]) error {
	return s.Events.follow(out.Context(), nil, func(ev Event) error {
		applied, ok := ev.(Applied)
		if !ok {
			return nil
		}
		l, err := s.layer(applied.Layer)
		if err != nil {
			return s.fail(err)
		}
		return out.Send(&spacemesh.LayerStreamResponse{Layer: l})
	})
}

// EpochStream sends the ids of the ATXs that count in an epoch.
func (s meshService) EpochStream(req *spacemesh.EpochStreamRequest, out grpc.ServerStreamingServer[spacemesh.EpochStreamResponse]) error {
	if req.Epoch == 0 {
		return nil // no ATX can be published before it
	}
	ids, err := s.Store.EpochATXs(types.Epoch(req.Epoch) - 1)
	if err != nil {
		return s.fail(err)
	}
	for _, id := range ids {
		if err := out.Send(&spacemesh.EpochStreamResponse{Id: &spacemesh.ActivationId{Id: id[:]}}); err != nil {
			return err
		}
	}
	return nil
}

const noMalfeasance = "malfeasance proofs are not kept by this version"

func (s meshService) MalfeasanceQuery(context.Context, *spacemesh.MalfeasanceRequest) (*spacemesh.MalfeasanceResponse, error) {
	return nil, status.Error(codes.Unimplemented, noMalfeasance)
}

func (s meshService) MalfeasanceStream(*spacemesh.MalfeasanceStreamRequest, grpc.ServerStreamingServer[spacemesh.MalfeasanceStreamResponse]) error {
	return status.Error(codes.Unimplemented, noMalfeasance)
}
