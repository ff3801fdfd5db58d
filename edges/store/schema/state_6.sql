-- Certificates are those of committees from here on. What was certified before is
-- another message, so a file with an older schema is not taken (fileKind.oldest).
DELETE FROM certificates;
