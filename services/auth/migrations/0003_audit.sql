-- compatible-from: 1
-- Who did what, append-only: each tenant's entries are a chain in which every hash covers the entry
-- and the hash before it. See docs/audit.md; services.runtime.audit writes, the tables of auth and
-- memory are alike.

CREATE TABLE auth.audit_log (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  -- 1, 2, 3, ... without a gap: set by the trigger, as are the time and both hashes.
  seq bigint NOT NULL CHECK (seq > 0),
  written_at timestamptz NOT NULL,
  actor text COLLATE "C" NOT NULL CHECK (octet_length(actor) BETWEEN 1 AND 256),
  action text COLLATE "C" NOT NULL CHECK (octet_length(action) BETWEEN 1 AND 64),
  target text COLLATE "C" NOT NULL CHECK (octet_length(target) <= 256),
  outcome text COLLATE "C" NOT NULL CHECK (outcome IN ('ok', 'refused')),
  -- A JSON object, kept as the text that was hashed. Ids, roles and reasons; never what anybody wrote.
  details text COLLATE "C" NOT NULL
    CHECK (octet_length(details) <= 4096 AND jsonb_typeof(details::jsonb) = 'object'),
  previous_hash bytea NOT NULL CHECK (octet_length(previous_hash) = 32),
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (tenant_id, seq)
);

-- A field with its length before it, so that no two lists of fields are the same bytes.
CREATE FUNCTION auth.audit_field(value bytea) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN int4send(octet_length(value)) || value;

-- Its own search path: no session can put another sha256 in the place of Postgres' own.
CREATE FUNCTION auth.audit_chain() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  last_seq bigint;
  last_hash bytea;
BEGIN
  -- One writer of a chain at a time, until its transaction has ended ("audi").
  PERFORM pg_advisory_xact_lock(1635083369, hashtext('auth:' || NEW.tenant_id));
  SELECT l.seq, l.hash INTO last_seq, last_hash FROM auth.audit_log l
    WHERE l.tenant_id = NEW.tenant_id ORDER BY l.seq DESC LIMIT 1;
  NEW.seq := coalesce(last_seq, 0) + 1;
  NEW.written_at := clock_timestamp();
  NEW.previous_hash := coalesce(last_hash, decode(repeat('00', 32), 'hex'));
  NEW.hash := sha256(
    auth.audit_field('echomesh-audit-1') || auth.audit_field(NEW.previous_hash)
    || auth.audit_field('auth') || auth.audit_field(convert_to(NEW.tenant_id, 'UTF8'))
    || auth.audit_field(int8send(NEW.seq))
    || auth.audit_field(int8send((extract(epoch FROM NEW.written_at) * 1000000)::bigint))
    || auth.audit_field(convert_to(NEW.actor, 'UTF8'))
    || auth.audit_field(convert_to(NEW.action, 'UTF8'))
    || auth.audit_field(convert_to(NEW.target, 'UTF8'))
    || auth.audit_field(convert_to(NEW.outcome, 'UTF8'))
    || auth.audit_field(convert_to(NEW.details, 'UTF8')));
  RETURN NEW;
END $$;
CREATE TRIGGER audit_chain BEFORE INSERT ON auth.audit_log
  FOR EACH ROW EXECUTE FUNCTION auth.audit_chain();

-- For the owner too, but for what `echomesh audit archive` has copied out: who takes this away does
-- so on purpose, and the chain tells.
CREATE FUNCTION auth.audit_append_only() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('echomesh.audit_archive', true) = 'on' THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON auth.audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION auth.audit_append_only();

ALTER TABLE auth.audit_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON auth.audit_log TO auth_owner USING (true) WITH CHECK (true);
-- The chain is the tenant's, so its next entry needs the tenant's last one, whoever it is about.
CREATE POLICY app_read ON auth.audit_log FOR SELECT TO auth_app
  USING (tenant_id = auth.current_tenant());
-- An entry is the calling tenant's own.
CREATE POLICY app_append ON auth.audit_log FOR INSERT TO auth_app
  WITH CHECK (tenant_id = auth.current_tenant());

REVOKE ALL ON auth.audit_log FROM auth_app, auth_jobs;
GRANT SELECT, INSERT (tenant_id, actor, action, target, outcome, details)
  ON auth.audit_log TO auth_app;
GRANT EXECUTE ON FUNCTION auth.audit_field(bytea) TO auth_app;
