-- Every row ends with a checksum over the columns before it.

CREATE TABLE meta (
	key   TEXT PRIMARY KEY,
	value BLOB NOT NULL,
	sum   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each identity has come on the way to its next ATX.
CREATE TABLE steps (
	identity BLOB NOT NULL,
	name     TEXT NOT NULL,
	value    BLOB NOT NULL,
	sum      BLOB NOT NULL,
	PRIMARY KEY (identity, name)
) STRICT, WITHOUT ROWID;

-- What each identity has signed: one hash for each domain and slot.
CREATE TABLE guard (
	domain   INTEGER NOT NULL,
	identity BLOB NOT NULL,
	slot     INTEGER NOT NULL, -- layer or epoch
	hash     BLOB NOT NULL,
	sum      BLOB NOT NULL,
	PRIMARY KEY (domain, identity, slot)
) STRICT, WITHOUT ROWID;
