-- A proof is looked up by what it is for. The names in it are not
-- authenticated, so they were no key. Older proofs are found by reference, and
-- offered again by who has them.
DROP TABLE poet_proofs;
CREATE TABLE poet_proofs (
	ref       BLOB PRIMARY KEY,
	statement BLOB NOT NULL,
	leaves    INTEGER NOT NULL,
	sum       BLOB NOT NULL
) STRICT;
CREATE INDEX poet_proofs_by_statement ON poet_proofs (statement, leaves);

DROP INDEX rewards_by_smesher;
