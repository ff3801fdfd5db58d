-- Who is proved malicious, with the proof. Certificates name more than they
-- did: what was certified before is fetched again.
CREATE TABLE malicious (
	smesher  BLOB PRIMARY KEY,
	received INTEGER NOT NULL, -- unix nanoseconds
	body     BLOB NOT NULL,
	sum      BLOB NOT NULL
) STRICT;
