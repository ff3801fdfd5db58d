package poet

import (
	"context"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/poet/registration"
)

// Service is a PoET server without its network side.
type Service struct{}

// Open opens the data directory, making it if it is missing, and starts nothing.
// It fails if another process has the directory, if its format or schedule is
// another one, or if its files are damaged; the error says what to do.
func Open(cfg Config) (*Service, error) { panic("poet: skeleton") }

// Close releases the data directory. Call it after Run has returned.
func (s *Service) Close() error { panic("poet: skeleton") }

// Run does everything that happens by itself until ctx ends: it stores
// registrations, closes, executes and proves rounds. When ctx ends it
// checkpoints and returns nil, within a second. Any other return is an error of
// the disk that only a restart can clear. Call it once.
func (s *Service) Run(ctx context.Context) error { panic("poet: skeleton") }

// Submit registers a member in the open round. When it returns a receipt the
// registration is durable. An error wraps one of the package's, with the reason.
func (s *Service) Submit(ctx context.Context, r Registration) (Receipt, error) {
	panic("poet: skeleton")
}

// Info describes the server.
func (s *Service) Info() Info { panic("poet: skeleton") }

// PowParams returns the current parameters of a registration's proof of work.
func (s *Service) PowParams() registration.PowParams { panic("poet: skeleton") }

// ReloadTrustedKeys reads the directory of trusted certifier keys again.
func (s *Service) ReloadTrustedKeys() error { panic("poet: skeleton") }

// Proof returns the stored proof of a round, or ErrNotFound.
func (s *Service) Proof(round string) (ProofRecord, error) { panic("poet: skeleton") }

// Proofs returns the rounds whose proof is stored, lowest number first.
func (s *Service) Proofs() ([]string, error) { panic("poet: skeleton") }

// Member returns a registration with its membership proof, once its round is
// closed; ErrNotFound before, and if there is no such member.
func (s *Service) Member(round string, nodeID []byte) (MembershipProof, error) {
	panic("poet: skeleton")
}

// Rounds returns the open round, those at work, and the latest proved ones,
// lowest number first.
func (s *Service) Rounds() []RoundStatus { panic("poet: skeleton") }

// Storage returns the disk budget.
func (s *Service) Storage() StorageStatus { panic("poet: skeleton") }

// Source returns where a worker gets this server's rounds; with
// Config.RegistrationOnly it is served to remote ones.
func (s *Service) Source() RoundSource { panic("poet: skeleton") }

// DB returns the database, for buckets of other packages. Writers use Update
// instead of its own, so that a full or failing disk is handled in one place.
func (s *Service) DB() *bbolt.DB { panic("poet: skeleton") }

// Update runs a transaction that is durable when it returns nil. The error wraps
// ErrDiskFull if there is no room; then nothing was changed.
func (s *Service) Update(fn func(tx *bbolt.Tx) error) error { panic("poet: skeleton") }

// OpenWorker opens a data directory for a worker without registrations.
func OpenWorker(cfg Config) (*Worker, error) { panic("poet: skeleton") }

// Worker executes rounds of a source.
type Worker struct{}

// Run executes the source's rounds until ctx ends, then checkpoints and returns
// within a second.
func (w *Worker) Run(ctx context.Context, source RoundSource) error { panic("poet: skeleton") }

// Rounds returns the rounds at work.
func (w *Worker) Rounds() []RoundStatus { panic("poet: skeleton") }

// Close releases the data directory.
func (w *Worker) Close() error { panic("poet: skeleton") }

// Seal returns value with a checksum over bucket, key and value, for storing in
// the database, which has no checksums of its own.
func SealValue(bucket string, key, value []byte) []byte { panic("poet: skeleton") }

// OpenValue returns the value of SealValue, or ErrDamaged.
func OpenValue(bucket string, key, sealed []byte) ([]byte, error) { panic("poet: skeleton") }

var _ = time.Now
