-- compatible-from: 1
-- Least rights: only what the code does. Until now both roles could write every table of the
-- schema, schema_migrations too, by which a release knows whether it may run.

REVOKE ALL ON ALL TABLES IN SCHEMA auth FROM auth_app, auth_jobs;

-- Sign-in, refresh and administration: nothing is deleted but counts of failed logins.
GRANT SELECT, INSERT ON auth.tenants, auth.requests TO auth_app;
GRANT SELECT, INSERT, UPDATE ON auth.users, auth.api_keys, auth.refresh_families,
  auth.refresh_tokens, auth.signing_keys TO auth_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.login_failures TO auth_app;

-- Pruning; tokens go with their family.
GRANT SELECT ON auth.tenants TO auth_jobs;
GRANT SELECT, DELETE ON auth.refresh_families, auth.requests, auth.login_failures TO auth_jobs;

DO $$ BEGIN
  IF to_regclass('auth.schema_migrations') IS NOT NULL THEN
    GRANT SELECT ON auth.schema_migrations TO auth_app, auth_jobs;
  END IF;
END $$;
