/** Keeping one identity's access token fresh. */

import { randomUUID } from "node:crypto";

import { timestampMs } from "@bufbuild/protobuf/wkt";

import { EchomeshError } from "./errors.js";
import { AuthService, type Tokens } from "./gen/echomesh/auth/v1/auth_pb.js";
import { Mutex, type Scope } from "./scope.js";
import { unary } from "./session.js";
import type { Transport } from "./transport.js";

/** A token is renewed this long before it expires, so that a call never starts with a stale one. */
const RENEW_BEFORE_MS = 30_000;

/** Gets a first pair of tokens. */
export type SignIn = (scope: Scope) => Promise<{ tokens?: Tokens | undefined }>;

/**
 * One identity's tokens.
 *
 * `signIn` gets a first pair; after that the refresh token is used, and `signIn` again only if the
 * refresh is refused.
 */
export class TokenSource {
  private tokens: Tokens | undefined;
  private dropped = "";
  /** Kept until there are new tokens: a refresh token sent again under another id is reuse. */
  private refreshId = "";
  private readonly renewing = new Mutex();

  constructor(
    private readonly transport: Transport,
    private readonly signIn: SignIn,
  ) {}

  /** A token that is valid for a while yet. */
  accessToken(scope: Scope): Promise<string> {
    return this.renewing.run(scope, async () => {
      if (!this.tokens || this.isExpiring(this.tokens)) {
        this.tokens = await this.renew(scope);
        this.refreshId = "";
      }
      return this.tokens.accessToken;
    });
  }

  /** Do not use this access token again: the mesh refused it. A newer one stays. */
  drop(accessToken: string): void {
    this.dropped = accessToken;
  }

  private isExpiring(tokens: Tokens): boolean {
    const expiresAt = tokens.accessExpiresAt ? timestampMs(tokens.accessExpiresAt) : 0;
    return tokens.accessToken === this.dropped || expiresAt - Date.now() < RENEW_BEFORE_MS;
  }

  private async renew(scope: Scope): Promise<Tokens> {
    const refreshToken = this.tokens?.refreshToken;
    if (refreshToken !== undefined) {
      try {
        return given(await this.refresh(refreshToken, scope));
      } catch (error) {
        if (!(error instanceof EchomeshError && error.code === "UNAUTHENTICATED")) throw error;
      }
    }
    return given(await this.signIn(scope));
  }

  private refresh(refreshToken: string, scope: Scope): Promise<{ tokens?: Tokens | undefined }> {
    this.refreshId ||= randomUUID();
    const session = { transport: this.transport, tokens: undefined };
    const request = { refreshToken, requestId: this.refreshId };
    return unary(session, AuthService.method.refresh, request, scope);
  }
}

function given(answer: { tokens?: Tokens | undefined }): Tokens {
  if (!answer.tokens) throw new EchomeshError("INTERNAL", "the mesh gave no tokens");
  return answer.tokens;
}
