package vm

import (
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// A template is the code of a spawned account, with the state it was spawned
// with. There is one kind so far, the wallet; multisig, vesting and vault
// (reference/protocol.md A11) will be further cases of newTemplate.
type template interface {
	// encodeArgs appends the arguments that the account is spawned with. They
	// are also its first state.
	encodeArgs(e *codec.Encoder)
	// callGas is the price of having a transaction of the account in a block,
	// without its data.
	callGas(m Method) uint64
	// loadGas is the price of reading the account.
	loadGas() uint64
	// spawnGas is the price of storing the account.
	spawnGas() uint64
	// verify tells whether the account's owners signed the transaction.
	verify(v signing.Verifier, tx *Tx) bool
}

// decodeTemplate reads the spawn arguments, or the state, of a template.
// It returns nil for a template that does not exist.
func decodeTemplate(address types.Address, d *codec.Decoder) template {
	switch address {
	case WalletTemplate():
		var w wallet
		d.Raw(w.key[:])
		return w
	}
	return nil
}

// template returns the code of a spawned account, nil for the others. That a
// state does not decode is a broken invariant: spawn wrote it, or Restore
// checked it.
func (a Account) template() template {
	t, ok := a.readTemplate()
	if !ok {
		panic("vm: an account has a state that its template cannot read")
	}
	return t
}

func (a Account) readTemplate() (t template, ok bool) {
	if !a.Spawned() {
		return nil, len(a.State) == 0
	}
	d := codec.NewDecoder(a.State)
	t = decodeTemplate(a.Template, d)
	return t, t != nil && d.Done() == nil
}

// WalletTemplate names the template of accounts with a single ed25519 key.
func WalletTemplate() types.Address { return types.Address{23: 1} }

// wallet is an account that one key owns.
type wallet struct{ key [32]byte }

// walletSize is in bytes: what the gas table counts for key and nonce and
// balance of a wallet.
const walletSize = 32 + 8 + 8

func (w wallet) encodeArgs(e *codec.Encoder) { e.Raw(w.key[:]) }

func (wallet) callGas(m Method) uint64 {
	if m == MethodSpawn {
		return gasTx + gasVerify + gasSpawn
	}
	return gasTx + gasVerify
}

func (wallet) loadGas() uint64  { return gasAccountAccess + words(walletSize)*gasLoadWord }
func (wallet) spawnGas() uint64 { return words(walletSize) * gasStoreWord }

func (w wallet) verify(v signing.Verifier, tx *Tx) bool {
	return len(tx.Signature) == len(types.Signature{}) &&
		v.VerifyTransaction(w.key, tx.body(), types.Signature(tx.Signature))
}

// spendGas is the price of a transfer: reading the recipient's balance,
// writing the sender's nonce and balance, writing the recipient's balance.
const spendGas = gasAccountAccess + gasLoadWord + 2*gasUpdateWord + gasUpdateWord

// WalletAddress returns the address of the account that a key owns.
func WalletAddress(key [32]byte) types.Address {
	return types.DeriveAddress(WalletTemplate(), key[:])
}

// Spawn returns the signed transaction that makes the signer's account able
// to spend. Gas price is in smidges per unit of gas.
func Spawn(s *signing.Signer, nonce, gasPrice uint64) types.Transaction {
	key := s.NodeID()
	return sign(s, Tx{
		Principal: WalletAddress(key), Method: MethodSpawn, Nonce: nonce, GasPrice: gasPrice,
		Template: WalletTemplate(), spawn: wallet{key},
	})
}

// Spend returns the signed transaction that moves an amount, in smidges, from
// the signer's account. Gas price is in smidges per unit of gas.
func Spend(s *signing.Signer, to types.Address, amount, nonce, gasPrice uint64) types.Transaction {
	return sign(s, Tx{
		Principal: WalletAddress(s.NodeID()), Method: MethodSpend, Nonce: nonce, GasPrice: gasPrice,
		To: to, Amount: amount,
	})
}

func sign(s *signing.Signer, tx Tx) types.Transaction {
	body := codec.Encode(tx)
	sig := s.SignTransaction(body)
	return append(body, sig[:]...)
}
