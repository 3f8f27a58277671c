-- compatible-from: 1
-- Tenants, users, API keys, refresh tokens, signing keys. All tables force row-level security; the
-- application role sees one tenant, that of `app.tenant_id`. Before a tenant is known (sign-in, key
-- exchange) it sees the one row that it can name: `app.tenant_name` or `app.api_key_id`.

DO $$ BEGIN
  IF to_regnamespace('auth') IS NULL THEN CREATE SCHEMA auth; END IF;
END $$;
GRANT USAGE ON SCHEMA auth TO auth_app, auth_jobs;

CREATE FUNCTION auth.current_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
  RETURN nullif(current_setting('app.tenant_id', true), '');

CREATE TABLE auth.tenants (
  id text COLLATE "C" PRIMARY KEY CHECK (id <> ''),
  name text COLLATE "C" NOT NULL UNIQUE CHECK (name <> ''),
  created_at timestamptz NOT NULL
);

CREATE TABLE auth.users (
  tenant_id text COLLATE "C" NOT NULL REFERENCES auth.tenants (id) CHECK (tenant_id <> ''),
  id text COLLATE "C" NOT NULL CHECK (id <> ''),
  username text COLLATE "C" CHECK (username <> ''),
  external_id text COLLATE "C" CHECK (external_id <> ''),
  roles text[] NOT NULL CHECK (roles <@ ARRAY['user', 'app', 'admin', 'operator']),
  -- argon2id; null: cannot sign in with a password.
  password_hash text,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, username),
  UNIQUE (tenant_id, external_id)
);
CREATE INDEX users_by_time ON auth.users (tenant_id, created_at, id);

CREATE TABLE auth.api_keys (
  id text COLLATE "C" PRIMARY KEY CHECK (id <> ''),
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL,
  name text NOT NULL,
  -- The secret has 256 random bits: a slow hash would add nothing.
  secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
  created_at timestamptz NOT NULL,
  revoked_at timestamptz,
  FOREIGN KEY (tenant_id, user_id) REFERENCES auth.users (tenant_id, id)
);
CREATE INDEX api_keys_by_time ON auth.api_keys (tenant_id, created_at, id);

-- All refresh tokens that come from one sign-in.
CREATE TABLE auth.refresh_families (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  id text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  -- The key that was exchanged for it, if one was: the family ends with the key.
  api_key_id text COLLATE "C",
  created_at timestamptz NOT NULL,
  -- The family's last token cannot live longer than this.
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  revoked_for text CHECK (revoked_for IN ('logout', 'reuse', 'password', 'api_key')),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, user_id) REFERENCES auth.users (tenant_id, id),
  CHECK ((revoked_at IS NULL) = (revoked_for IS NULL))
);
CREATE INDEX refresh_families_of_user ON auth.refresh_families (tenant_id, user_id, expires_at);

CREATE TABLE auth.refresh_tokens (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  token_sha256 bytea NOT NULL CHECK (octet_length(token_sha256) = 32),
  family_id text COLLATE "C" NOT NULL,
  -- The token that was exchanged for this one; null for the first of a family.
  parent_sha256 bytea,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  used_request_id text,
  PRIMARY KEY (tenant_id, token_sha256),
  FOREIGN KEY (tenant_id, family_id) REFERENCES auth.refresh_families (tenant_id, id)
    ON DELETE CASCADE,
  CHECK ((used_at IS NULL) = (used_request_id IS NULL))
);
CREATE INDEX refresh_tokens_of_family ON auth.refresh_tokens (tenant_id, family_id);

-- Answers of finished writes, so that a repeated request_id gets the same one.
CREATE TABLE auth.requests (
  tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  user_id text COLLATE "C" NOT NULL,
  request_id text COLLATE "C" NOT NULL,
  -- Keyed hash of method and body: a password in it cannot be guessed from this table.
  fingerprint bytea NOT NULL,
  answer jsonb NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, user_id, request_id)
);

-- Belongs to no tenant. The private key is wrapped (AES-256-GCM) by a key that is not in here.
CREATE TABLE auth.signing_keys (
  id text COLLATE "C" PRIMARY KEY,
  public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
  wrapped_key bytea NOT NULL,
  created_at timestamptz NOT NULL,
  signs_from timestamptz NOT NULL,
  -- Null until a successor is published.
  retires_at timestamptz CHECK (retires_at > signs_from)
);

-- Belongs to no tenant: the account that is tried need not exist. The key is a hash.
CREATE TABLE auth.login_failures (
  account_network_sha256 bytea PRIMARY KEY CHECK (octet_length(account_network_sha256) = 32),
  failures int NOT NULL CHECK (failures > 0),
  last_failure_at timestamptz NOT NULL,
  blocked_until timestamptz NOT NULL
);
CREATE INDEX login_failures_by_time ON auth.login_failures (last_failure_at);

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['tenants', 'users', 'api_keys', 'refresh_families',
                              'refresh_tokens', 'requests', 'signing_keys', 'login_failures'] LOOP
    EXECUTE format('ALTER TABLE auth.%I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE auth.%I FORCE ROW LEVEL SECURITY', name);
    -- FORCE blinds the owner too; migrations and backups must see all rows.
    EXECUTE format('CREATE POLICY owner_all ON auth.%I TO auth_owner USING (true) WITH CHECK (true)', name);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON auth.%I TO auth_app', name);
  END LOOP;
  FOREACH name IN ARRAY ARRAY['users', 'api_keys', 'refresh_families', 'refresh_tokens', 'requests'] LOOP
    EXECUTE format('CREATE POLICY app_tenant ON auth.%I TO auth_app '
                   'USING (tenant_id = auth.current_tenant()) '
                   'WITH CHECK (tenant_id = auth.current_tenant())', name);
    EXECUTE format('CREATE POLICY jobs_tenant ON auth.%I TO auth_jobs '
                   'USING (tenant_id = auth.current_tenant()) '
                   'WITH CHECK (tenant_id = auth.current_tenant())', name);
  END LOOP;
  -- No tenant stands in these two, so there is nothing to separate.
  FOREACH name IN ARRAY ARRAY['signing_keys', 'login_failures'] LOOP
    EXECUTE format('CREATE POLICY app_all ON auth.%I TO auth_app USING (true) WITH CHECK (true)', name);
  END LOOP;
END $$;

CREATE POLICY app_tenant ON auth.tenants TO auth_app
  USING (id = auth.current_tenant()
         OR name = nullif(current_setting('app.tenant_name', true), ''))
  WITH CHECK (id = auth.current_tenant());
CREATE POLICY jobs_all ON auth.tenants FOR SELECT TO auth_jobs USING (true);
CREATE POLICY app_named_key ON auth.api_keys FOR SELECT TO auth_app
  USING (id = nullif(current_setting('app.api_key_id', true), ''));
CREATE POLICY jobs_prune ON auth.login_failures TO auth_jobs USING (true) WITH CHECK (true);
