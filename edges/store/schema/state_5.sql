-- What is said of the layers that are voted about, as far back as ballots may
-- still differ.
CREATE TABLE opinions (
	layer INTEGER PRIMARY KEY,
	body  BLOB NOT NULL,
	sum   BLOB NOT NULL
) STRICT;
