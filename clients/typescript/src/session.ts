/** Tokens, attempts and calls: everything between a method and the wire. */

import { create, getOption } from "@bufbuild/protobuf";
import type { DescMessage, DescMethod, DescMethodServerStreaming, DescMethodUnary } from "@bufbuild/protobuf";
import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Metadata, type Client, type ClientReadableStream, type ServiceError } from "@grpc/grpc-js";

import { EchomeshError, fromServiceError } from "./errors.js";
import { retry as retryOption } from "./gen/echomesh/common/v1/options_pb.js";
import { MeshService } from "./gen/echomesh/routing/v1/routing_pb.js";
import { PeerLostError, Watch, type Peer } from "./peers.js";
import { atMost, type Scope } from "./scope.js";
import { Transport, wire, type TransportOptions } from "./transport.js";
import type { TokenSource } from "./tokens.js";

const BACKOFF_MS = 100;
const BACKOFF_CAP_MS = 1_000;
/** The server closes a stream right after its last message. */
const END_MS = 1_000;

/** A transport and the tokens of one identity; without tokens, what anyone may call. */
export interface Session {
  transport: Transport;
  tokens: TokenSource | undefined;
}

/** How often a method may be tried, by its proto; 1 if a repeat might do the thing twice. */
export function maxAttempts(method: DescMethod): number {
  const retry = getOption(method, retryOption);
  return retry.idempotent ? Math.max(1, retry.maxAttempts) : 1;
}

/** Connections to the mesh at `address`. */
export function openTransport(address: string, options: TransportOptions): Transport {
  return new Transport(address, options, async (peer, scope) => {
    const metadata = headers(scope);
    const request = create(MeshService.method.getEndpoints.input);
    const answer = await once(peer, MeshService.method.getEndpoints, request, metadata, scope);
    return answer.endpoints;
  });
}

/**
 * Call a method, trying again while it is idempotent, the failure passing and time left.
 *
 * @throws EchomeshError, or the reason of the scope's signal
 */
export async function unary<I extends DescMessage, O extends DescMessage>(
  session: Session,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  scope: Scope,
): Promise<MessageShape<O>> {
  const attempts = new Attempts(method, session, scope);
  const message = create(method.input, request);
  for (;;) {
    try {
      const metadata = await attempts.metadata();
      const peer = await session.transport.peer(method, scope);
      return await once(peer, method, message, metadata, scope);
    } catch (error) {
      await attempts.after(error);
    }
  }
}

/** One attempt at a method. */
async function once<I extends DescMessage, O extends DescMessage>(
  peer: Peer,
  method: DescMethodUnary<I, O>,
  request: MessageShape<I>,
  metadata: Metadata,
  scope: Scope,
): Promise<MessageShape<O>> {
  const { path, write, read } = wire(method);
  const { signal } = scope;
  const deadline = scope.deadline();
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null, answer?: MessageShape<O>): void => {
      signal?.removeEventListener("abort", abort);
      watch.stop(error ?? undefined);
      if (error) reject(watch.lost ? new PeerLostError() : error);
      else resolve(answer as MessageShape<O>);
    };
    const call = peer.client.makeUnaryRequest(path, write, read, request, metadata, { deadline }, done);
    const watch = new Watch(peer, call);
    const abort = (): void => call.cancel();
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/**
 * One attempt at a stream of answers. Leaving the iteration early cancels the call; the last answer comes
 * when the server has ended it, since cancelled then it would count as that.
 */
export async function* stream<I extends DescMessage, O extends DescMessage>(
  session: Session,
  method: DescMethodServerStreaming<I, O>,
  request: MessageShape<I>,
  attempts: Attempts,
  scope: Scope,
  isLast: (answer: MessageShape<O>) => boolean,
): AsyncGenerator<MessageShape<O>, void, void> {
  const metadata = await attempts.metadata();
  const peer = await session.transport.peer(method, scope);
  const call = begin(peer.client, method, request, metadata, scope);
  const ended = new Promise((resolve) => call.once("status", resolve));
  const watch = new Watch(peer, call);
  const abort = (): void => call.cancel();
  scope.signal?.addEventListener("abort", abort, { once: true });
  let failed: ServiceError | undefined;
  try {
    for await (const answer of call) {
      watch.heard();
      if (isLast(answer as MessageShape<O>)) await atMost(END_MS, ended);
      yield answer as MessageShape<O>;
    }
  } catch (error) {
    failed = error as ServiceError;
    throw watch.lost ? new PeerLostError() : error;
  } finally {
    scope.signal?.removeEventListener("abort", abort);
    watch.stop(failed);
    call.cancel();
  }
}

function begin<I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: DescMethodServerStreaming<I, O>,
  request: MessageShape<I>,
  metadata: Metadata,
  scope: Scope,
): ClientReadableStream<MessageShape<O>> {
  const { path, write, read } = wire(method);
  const deadline = scope.deadline();
  scope.signal?.throwIfAborted();
  const call = client.makeServerStreamRequest(path, write, read, request, metadata, { deadline });
  // The iteration tells of errors; one that comes after it is of no interest.
  call.on("error", () => {});
  return call;
}

function headers(scope: Scope): Metadata {
  const metadata = new Metadata();
  metadata.set("traceparent", scope.traceparent());
  return metadata;
}

/** Decides after each failure whether to try again, and waits before it. */
export class Attempts {
  private left: number;
  private readonly once: boolean;
  private made = 0;
  private renewed = false;
  private token = "";

  constructor(
    method: DescMethod,
    private readonly session: Session,
    private readonly scope: Scope,
  ) {
    this.left = maxAttempts(method);
    this.once = this.left === 1;
  }

  /** What one attempt says of itself: its trace, and who calls. */
  async metadata(): Promise<Metadata> {
    this.scope.signal?.throwIfAborted();
    const metadata = headers(this.scope);
    if (this.session.tokens) {
      this.token = await this.session.tokens.accessToken(this.scope);
      metadata.set("authorization", `Bearer ${this.token}`);
    }
    return metadata;
  }

  /** Returns to try again; throws the error to give up. */
  async after(failed: unknown): Promise<void> {
    this.scope.signal?.throwIfAborted();
    const error = failure(failed, this.scope);
    if (error.reason === "TOKEN_EXPIRED" && this.session.tokens && !this.renewed) {
      this.renewed = true;
      this.session.tokens.drop(this.token);
      return;
    }
    // An error without a reason is the connection's: a service may be starting again, which may take
    // as long as the caller is willing to wait.
    if (error.reason || error.code !== "UNAVAILABLE") this.left -= 1;
    const waitMs = this.waitMs(error);
    if (this.once || this.left < 1 || waitMs === undefined || waitMs >= this.scope.remainingMs()) {
      throw error;
    }
    if (error.code === "UNAVAILABLE") this.session.transport.forgetEndpoints();
    await this.scope.sleep(waitMs);
  }

  private waitMs(error: EchomeshError): number | undefined {
    if (error.retryAfterMs !== undefined) return error.retryAfterMs;
    if (error.code !== "UNAVAILABLE") return undefined;
    const backoffMs = Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** this.made);
    this.made += 1;
    return backoffMs * (0.8 + 0.4 * Math.random());
  }
}

/** The error that a failed call is told as; what is no failure of a call is thrown as it is. */
function failure(failed: unknown, { traceId }: Scope): EchomeshError {
  if (failed instanceof EchomeshError) throw failed; // of a call that was tried again by itself
  if (failed instanceof PeerLostError) {
    return new EchomeshError("UNAVAILABLE", "the replica stopped answering", { traceId });
  }
  if (!(failed instanceof Error && "code" in failed && "details" in failed)) throw failed;
  const known = fromServiceError(failed as ServiceError, traceId);
  if (!isConnections(known)) return known;
  return new EchomeshError("UNAVAILABLE", "the replica ended the call", { traceId });
}

/**
 * Whether an error is not the mesh's, which gives a reason, but the connection's by another name:
 * CANCELLED (not by us, who would not be told) is what reaches a server as it stops, and a server or
 * proxy that dies may reset its streams.
 */
function isConnections(error: EchomeshError): boolean {
  if (error.reason) return false;
  const reset = error.code === "INTERNAL" && error.message.includes("RST_STREAM");
  return error.code === "CANCELLED" || reset;
}
