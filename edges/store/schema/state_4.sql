-- The beacon of each epoch, from when it is known.
CREATE TABLE beacons (
	epoch INTEGER PRIMARY KEY,
	value BLOB NOT NULL,
	sum   BLOB NOT NULL
) STRICT;
