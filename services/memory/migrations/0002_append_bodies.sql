-- compatible-from: 1
-- What an appended message was stored with, so that its request_id with another body is refused.
-- NULL for a turn's messages (memory.turns has theirs), once the message is erased, and for what
-- release 1 stores: its INSERT names its columns and goes on working.
ALTER TABLE memory.messages ADD COLUMN body_sha256 bytea;
