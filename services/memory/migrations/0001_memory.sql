-- compatible-from: 1
-- Conversations, messages, memories and the outbox. Everything a person owns is hash-partitioned
-- by user and guarded by row-level security on tenant and user; see docs/architecture.md, Data.

-- The calling tenant and user; NULL where none is set, so that nothing matches.
CREATE FUNCTION memory.current_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
  RETURN nullif(current_setting('app.tenant_id', true), '');
CREATE FUNCTION memory.current_user_id() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
  RETURN nullif(current_setting('app.user_id', true), '');
GRANT EXECUTE ON FUNCTION memory.current_tenant(), memory.current_user_id() TO memory_app, memory_jobs;

CREATE TABLE memory.conversations (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  conversation_id text COLLATE "C" NOT NULL CHECK (octet_length(conversation_id) <= 512),
  title text NOT NULL DEFAULT '',
  metadata jsonb NOT NULL DEFAULT '{}' CHECK (pg_column_size(metadata) <= 65536),
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  last_seq bigint NOT NULL DEFAULT 0,
  message_count bigint NOT NULL DEFAULT 0,
  -- Set while the conversation is deleted: how many messages went with it.
  deleted_at timestamptz,
  deleted_messages bigint NOT NULL DEFAULT 0,
  request_id text COLLATE "C",
  body_sha256 bytea,
  PRIMARY KEY (tenant_id, user_id, conversation_id),
  UNIQUE (tenant_id, user_id, request_id)
) PARTITION BY HASH (user_id);
CREATE INDEX conversations_newest ON memory.conversations
  (tenant_id, user_id, created_at DESC, conversation_id DESC);

CREATE TABLE memory.messages (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  message_id uuid NOT NULL,
  conversation_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL CHECK (seq > 0),
  role text NOT NULL CHECK (role IN ('user', 'assistant')),
  speaker text NOT NULL,
  text text NOT NULL CHECK (octet_length(text) <= 262144),
  said_at timestamptz NOT NULL,
  stored_at timestamptz NOT NULL DEFAULT now(),
  metadata jsonb NOT NULL DEFAULT '{}' CHECK (pg_column_size(metadata) <= 65536),
  in_reply_to uuid,
  parent_message_id uuid,
  finish_reason text NOT NULL DEFAULT '',
  model text NOT NULL DEFAULT '',
  -- Prefixed by its origin: i: appended, t: a turn's message, r: a turn's reply.
  request_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant_id, user_id, message_id),
  UNIQUE (tenant_id, user_id, request_id),
  UNIQUE (tenant_id, user_id, conversation_id, seq)
) PARTITION BY HASH (user_id);

CREATE TABLE memory.turns (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  request_id text COLLATE "C" NOT NULL,
  conversation_id text COLLATE "C" NOT NULL,
  body_sha256 bytea NOT NULL,
  message_id uuid NOT NULL,
  epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
  reply_id uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, user_id, request_id)
) PARTITION BY HASH (user_id);
CREATE INDEX turns_conversation ON memory.turns (tenant_id, user_id, conversation_id);

-- A message's memory has the message's id.
CREATE TABLE memory.memories (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  memory_id uuid NOT NULL,
  version bigint NOT NULL DEFAULT 1 CHECK (version > 0),
  kind text NOT NULL CHECK (kind IN ('episodic', 'fact', 'preference', 'summary')),
  text text NOT NULL CHECK (octet_length(text) <= 262144),
  speaker text NOT NULL,
  role text NOT NULL CHECK (role IN ('user', 'assistant')),
  said_at timestamptz NOT NULL,
  metadata jsonb NOT NULL DEFAULT '{}' CHECK (pg_column_size(metadata) <= 65536),
  message_id uuid,
  conversation_id text COLLATE "C",
  seq bigint,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- Stemmed terms of the dated text and how often each occurs, for keyword recall.
  terms text[] COLLATE "C" NOT NULL,
  term_counts smallint[] NOT NULL,
  -- The version the vector index holds; 0 while it holds none.
  indexed_version bigint NOT NULL DEFAULT 0,
  -- Set when erased: text, metadata and terms are empty from then on.
  forgotten_at timestamptz,
  request_id text COLLATE "C",
  body_sha256 bytea,
  PRIMARY KEY (tenant_id, user_id, memory_id),
  UNIQUE (tenant_id, user_id, request_id),
  CHECK (forgotten_at IS NULL OR text = '')
) PARTITION BY HASH (user_id);
CREATE INDEX memories_newest ON memory.memories
  (tenant_id, user_id, said_at DESC, memory_id DESC) WHERE forgotten_at IS NULL;
CREATE INDEX memories_conversation ON memory.memories
  (tenant_id, user_id, conversation_id, seq) WHERE forgotten_at IS NULL;
CREATE INDEX memories_pending ON memory.memories
  (tenant_id, user_id, said_at DESC) WHERE indexed_version <> version AND forgotten_at IS NULL;

-- Earlier versions: what a memory said before the update `request_id` replaced it.
CREATE TABLE memory.memory_versions (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  memory_id uuid NOT NULL,
  version bigint NOT NULL,
  kind text NOT NULL,
  text text NOT NULL,
  said_at timestamptz NOT NULL,
  metadata jsonb NOT NULL,
  updated_at timestamptz NOT NULL,
  request_id text COLLATE "C" NOT NULL,
  body_sha256 bytea NOT NULL,
  PRIMARY KEY (tenant_id, user_id, memory_id, version),
  UNIQUE (tenant_id, user_id, request_id)
) PARTITION BY HASH (user_id);

-- One vector per memory and model, so that a rebuild embeds nothing.
CREATE TABLE memory.memory_vectors (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  memory_id uuid NOT NULL,
  model text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  dimensions smallint NOT NULL CHECK (dimensions > 0),
  -- Little-endian fp16, unit length.
  vector bytea NOT NULL CHECK (octet_length(vector) = dimensions * 2),
  -- Little-endian int8 rows for MaxSim, where the model gave them.
  token_vectors bytea,
  PRIMARY KEY (tenant_id, user_id, memory_id, model)
) PARTITION BY HASH (user_id);
-- They do not compress, and recall reads hundreds at once: kept in the row while they fit a page.
ALTER TABLE memory.memory_vectors ALTER COLUMN vector SET STORAGE EXTERNAL,
  ALTER COLUMN token_vectors SET STORAGE EXTERNAL;

-- Term statistics per user, kept in the storing transaction.
CREATE TABLE memory.terms (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  term text COLLATE "C" NOT NULL,
  df bigint NOT NULL,
  PRIMARY KEY (tenant_id, user_id, term)
) PARTITION BY HASH (user_id);
CREATE TABLE memory.speakers (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  speaker text NOT NULL,
  memories bigint NOT NULL,
  PRIMARY KEY (tenant_id, user_id, speaker)
) PARTITION BY HASH (user_id);

-- One row per person who ever stored something: the list that jobs walk.
CREATE TABLE memory.corpora (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  documents bigint NOT NULL,
  PRIMARY KEY (tenant_id, user_id)
);

-- Memories whose index entry must be brought in step. Ids only: the handler reads the row.
CREATE TABLE memory.outbox (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
  memory_id uuid NOT NULL,
  -- Rises when the memory changes again while its job runs, so that the job stays.
  generation bigint NOT NULL DEFAULT 1,
  attempts integer NOT NULL DEFAULT 0,
  queued_at timestamptz NOT NULL DEFAULT now(),
  -- Not before this time; a runner holds a job by moving it on.
  run_at timestamptz NOT NULL DEFAULT now(),
  -- True while a runner has it: no other may, or an older state could overtake a newer one.
  leased boolean NOT NULL DEFAULT false,
  -- True after too many attempts; reconcile queues it anew.
  held boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, user_id, memory_id)
);
CREATE INDEX outbox_due ON memory.outbox (run_at) WHERE NOT held;

-- Which life of the index, and which model, the rows' indexed_version speaks of; another life is
-- empty. Reconciliation is asked for here, so that it needs no second process on the index.
CREATE TABLE memory.index_state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  generation text NOT NULL DEFAULT '',
  model text NOT NULL DEFAULT '',
  reconcile_asked_at timestamptz,
  reconciled_at timestamptz,
  reconcile_report jsonb NOT NULL DEFAULT '{}'
);
INSERT INTO memory.index_state DEFAULT VALUES;

DO $$
DECLARE
  own constant text := 'tenant_id = memory.current_tenant() AND user_id = memory.current_user_id()';
  partitioned constant text[] := ARRAY['conversations', 'messages', 'turns', 'memories',
    'memory_versions', 'memory_vectors', 'terms', 'speakers'];
  name text;
BEGIN
  FOREACH name IN ARRAY partitioned LOOP
    FOR part IN 0..7 LOOP
      EXECUTE format('CREATE TABLE memory.%I PARTITION OF memory.%I FOR VALUES WITH '
                     '(MODULUS 8, REMAINDER %s)', name || '_' || part, name, part);
    END LOOP;
  END LOOP;
  FOR part IN 0..7 LOOP
    EXECUTE format('ALTER TABLE memory.%I SET (toast_tuple_target = 8160)', 'memory_vectors_' || part);
  END LOOP;
  FOR name IN SELECT c.relname FROM pg_class c
      WHERE c.relnamespace = 'memory'::regnamespace AND c.relkind IN ('r', 'p')
        AND c.relname !~ '^schema_' LOOP
    EXECUTE format('ALTER TABLE memory.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY owner_all ON memory.%I TO memory_owner USING (true)', name);
    EXECUTE format('CREATE POLICY jobs ON memory.%I TO memory_jobs USING (%s)', name,
                   CASE WHEN name IN ('outbox', 'corpora', 'index_state') THEN 'true' ELSE own END);
    CONTINUE WHEN name = 'index_state';
    EXECUTE format('CREATE POLICY app_own ON memory.%I TO memory_app USING (%s)', name, own);
  END LOOP;
END $$;

-- Least rights: only what the code does, and nothing on partitions.
REVOKE ALL ON ALL TABLES IN SCHEMA memory FROM memory_app, memory_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.conversations, memory.messages, memory.turns,
  memory.memories, memory.memory_versions, memory.memory_vectors, memory.terms, memory.speakers,
  memory.corpora, memory.outbox TO memory_app;
GRANT SELECT, UPDATE ON memory.memories, memory.messages, memory.index_state TO memory_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.memory_versions, memory.memory_vectors,
  memory.outbox, memory.terms, memory.speakers, memory.corpora TO memory_jobs;
DO $$ BEGIN
  IF to_regclass('memory.schema_migrations') IS NOT NULL THEN
    GRANT SELECT ON memory.schema_migrations TO memory_app, memory_jobs;
  END IF;
END $$;
