/** The client. */

import { AuthService } from "./gen/echomesh/auth/v1/auth_pb.js";
import { MeshService } from "./gen/echomesh/routing/v1/routing_pb.js";
import type { CallOptions } from "./scope.js";
import { openTransport, unary } from "./session.js";
import { TokenSource } from "./tokens.js";
import type { TransportOptions } from "./transport.js";
import { User, type UserOptions } from "./user.js";

export interface ClientOptions extends TransportOptions, UserOptions {
  apiKey: string;
}

/**
 * A connection to a mesh, and the user whose key it was opened with.
 *
 * `address` is the host:port of any routing replica, or several separated by commas, of which one that
 * fails is passed over; the other services are found from it. TLS is used unless the address is
 * loopback, or as `tls` says. Methods throw `EchomeshError`, or the reason of a signal that was aborted.
 */
export class Client extends User {
  constructor(address: string, { apiKey, ...options }: ClientOptions) {
    const transport = openTransport(address, options);
    const anyone = { transport, tokens: undefined };
    const tokens = new TokenSource(transport, (scope) =>
      unary(anyone, AuthService.method.exchangeApiKey, { apiKey }, scope),
    );
    super({ transport, tokens }, options);
  }

  /** The same mesh as one of the application's end users, who is made on first use. The key must have
   * the role `app`. */
  asUser(externalUserId: string): User {
    const { transport } = this.session;
    const tokens = new TokenSource(transport, (scope) =>
      unary(this.session, AuthService.method.exchangeToken, { externalUserId }, scope),
    );
    return new User({ transport, tokens }, this.options);
  }

  /** Where each client-facing gRPC service listens. */
  async endpoints(options: CallOptions = {}): Promise<Record<string, string>> {
    const anyone = { transport: this.session.transport, tokens: undefined };
    const answer = await unary(anyone, MeshService.method.getEndpoints, {}, this.scope(options));
    return Object.fromEntries(answer.endpoints.map((e) => [e.service, e.address]));
  }

  /** Close the connections; calls under way end. */
  close(): void {
    this.session.transport.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
