-- Every row but those of the plain index tx_addresses ends with a
-- checksum over the columns before it.

CREATE TABLE meta (
	key   TEXT PRIMARY KEY,
	value BLOB NOT NULL,
	sum   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The bytes of everything that is named by its hash.
CREATE TABLE objects (
	kind INTEGER NOT NULL,
	id   BLOB NOT NULL,
	body BLOB NOT NULL,
	sum  BLOB NOT NULL,
	PRIMARY KEY (kind, id)
) STRICT;

-- What validation derived from an ATX. Heights and ticks are in PoET ticks.
CREATE TABLE atxs (
	id              BLOB PRIMARY KEY,
	publish_epoch   INTEGER NOT NULL,
	smesher         BLOB NOT NULL,
	coinbase        BLOB NOT NULL,
	commitment      BLOB NOT NULL,
	vrf_nonce       INTEGER NOT NULL,
	num_units       INTEGER NOT NULL,
	effective_units INTEGER NOT NULL,
	ticks           INTEGER NOT NULL,
	base_height     INTEGER NOT NULL,
	weight          INTEGER NOT NULL,
	received        INTEGER NOT NULL, -- unix nanoseconds
	sum             BLOB NOT NULL
) STRICT;
CREATE INDEX atxs_by_epoch ON atxs (publish_epoch, id);
CREATE INDEX atxs_by_smesher ON atxs (smesher, publish_epoch);
CREATE INDEX atxs_by_coinbase ON atxs (coinbase, publish_epoch, id);
CREATE INDEX atxs_by_height ON atxs (base_height + ticks, id);

CREATE TABLE poet_proofs (
	ref    BLOB PRIMARY KEY,
	poet   BLOB NOT NULL,
	round  TEXT NOT NULL,
	leaves INTEGER NOT NULL,
	sum    BLOB NOT NULL
) STRICT;
CREATE INDEX poet_proofs_by_round ON poet_proofs (poet, round, leaves);

CREATE TABLE ballots (
	id        BLOB PRIMARY KEY,
	layer     INTEGER NOT NULL,
	smesher   BLOB NOT NULL,
	atx       BLOB NOT NULL,
	reference INTEGER NOT NULL, -- 1 if it declares the smesher's epoch data
	sum       BLOB NOT NULL
) STRICT;
CREATE INDEX ballots_by_layer ON ballots (layer, id);
CREATE INDEX ballots_by_smesher ON ballots (smesher, reference, layer);

-- The outcome of every applied layer.
CREATE TABLE layers (
	layer      INTEGER PRIMARY KEY,
	block      BLOB NOT NULL, -- zero when the layer has none
	state_root BLOB NOT NULL,
	txs        INTEGER NOT NULL, -- that had an effect
	sum        BLOB NOT NULL
) STRICT;

CREATE TABLE certificates (
	layer INTEGER PRIMARY KEY,
	body  BLOB NOT NULL,
	sum   BLOB NOT NULL
) STRICT;

-- The transactions of applied layers; seq is the order of their application.
CREATE TABLE transactions (
	seq INTEGER PRIMARY KEY,
	id  BLOB NOT NULL UNIQUE,
	sum BLOB NOT NULL
) STRICT;
CREATE TABLE tx_addresses (
	address BLOB NOT NULL,
	seq     INTEGER NOT NULL,
	PRIMARY KEY (address, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX tx_addresses_by_seq ON tx_addresses (seq);

CREATE TABLE tx_results (
	id       BLOB PRIMARY KEY,
	layer    INTEGER NOT NULL,
	position INTEGER NOT NULL, -- in the block
	status   INTEGER NOT NULL, -- a vm.Status
	reason   TEXT NOT NULL,
	gas      INTEGER NOT NULL,
	fee      INTEGER NOT NULL,
	sum      BLOB NOT NULL
) STRICT;
CREATE INDEX tx_results_by_layer ON tx_results (layer, position);

CREATE TABLE rewards (
	layer    INTEGER NOT NULL,
	position INTEGER NOT NULL, -- in the block
	atx      BLOB NOT NULL,
	smesher  BLOB NOT NULL,
	coinbase BLOB NOT NULL,
	total    INTEGER NOT NULL,
	subsidy  INTEGER NOT NULL,
	sum      BLOB NOT NULL,
	PRIMARY KEY (layer, position)
) STRICT;
CREATE INDEX rewards_by_coinbase ON rewards (coinbase, layer, position);
CREATE INDEX rewards_by_smesher ON rewards (smesher, layer, position);

-- One row for every layer that changed an account.
CREATE TABLE accounts (
	address    BLOB NOT NULL,
	layer      INTEGER NOT NULL,
	next_nonce INTEGER NOT NULL,
	balance    INTEGER NOT NULL,
	template   BLOB NOT NULL, -- zero until the account is spawned
	state      BLOB NOT NULL,
	sum        BLOB NOT NULL,
	PRIMARY KEY (address, layer)
) STRICT;
CREATE INDEX accounts_by_layer ON accounts (layer);

-- What waited for a block when the node ended.
CREATE TABLE waiting (
	seq  INTEGER PRIMARY KEY,
	body BLOB NOT NULL,
	sum  BLOB NOT NULL
) STRICT;
