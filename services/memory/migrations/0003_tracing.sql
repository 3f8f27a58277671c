-- compatible-from: 1
-- Why a reply is as it is, as routing wrote it: ids, names and numbers, nobody's text.
-- NULL for turns of an older release.
ALTER TABLE memory.turns ADD COLUMN explanation bytea;
-- The span that queued a job, so that the job's trace links to it (W3C traceparent).
ALTER TABLE memory.outbox ADD COLUMN traceparent text COLLATE "C";
-- Not valid: rows that are there need no check, and reading them all would hold up everybody.
ALTER TABLE memory.turns ADD CONSTRAINT turns_explanation_check
  CHECK (octet_length(explanation) <= 16384) NOT VALID;
ALTER TABLE memory.outbox ADD CONSTRAINT outbox_traceparent_check
  CHECK (octet_length(traceparent) <= 64) NOT VALID;
