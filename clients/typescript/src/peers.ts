/**
 * The replicas of a service: which one to call next, and noticing one that froze under a call.
 *
 * A frozen process keeps its connection, so a call to it would just last until its deadline. Health
 * answers at once even on a busy replica; a call that stays silent is therefore given up, and tried
 * elsewhere, when its replica does not answer a health check either.
 */

import { Client, Metadata, status as Status, type ServiceError } from "@grpc/grpc-js";

import { closed } from "./errors.js";

/** A call that has been silent for so long has its replica's health looked at. */
const QUIET_MS = 2_000;
/** A replica that gives no answer about its health within this time is frozen or cut off. */
const PROBE_MS = 2_000;
/** How often to look whether a replica that failed has come back. */
const PROBE_EVERY_MS = 1_000;
/** Calls on a connection that is left may go on for as long as any call may take. */
const LONGEST_CALL_MS = 600_000;

const CHECK = "/grpc.health.v1.Health/Check";
/** A health answer that says NOT_SERVING; this package has no stubs of the health service. */
const NOT_SERVING = Buffer.from([8, 2]);

/** The replica that was called answers nothing any more. */
export class PeerLostError extends Error {}

/** What can be called off, such as a call of grpc-js. */
export interface Cancellable {
  cancel(): void;
}

/** One replica, or a balancer in front of several: its address and its connection. */
export class Peer {
  client: Client;
  /** Failed, and not yet seen healthy since: it is called only if there is no other. */
  suspect = false;
  /** Those that look after the calls under way. */
  readonly watches = new Set<Watch>();
  private probing = false;
  private probedAt = -Infinity;
  private readonly left = new Map<Client, NodeJS.Timeout>();

  constructor(
    readonly address: string,
    private readonly connect: (address: string) => Client,
  ) {
    this.client = connect(address);
  }

  /** Use a new connection: behind a balancer it may lead to another replica. */
  reconnect(): void {
    const old = this.client;
    this.client = this.connect(this.address);
    this.left.set(
      old,
      setTimeout(() => this.drop(old), LONGEST_CALL_MS).unref(),
    );
  }

  private drop(client: Client): void {
    clearTimeout(this.left.get(client));
    this.left.delete(client);
    client.close();
  }

  /** Close the connection, and those that were left; grpc-js would let calls under way go on. */
  close(): void {
    for (const watch of this.watches) watch.callOff();
    for (const client of [...this.left.keys()]) this.drop(client);
    this.client.close();
  }

  /** Whether a health check gets no answer at all; an error is one. */
  async frozen(): Promise<boolean> {
    return (await this.check()) === Status.DEADLINE_EXCEEDED;
  }

  /** Ask about its health behind the caller's back, now and then, and trust it again if it is well. */
  lookAgain(): void {
    if (this.probing || Date.now() - this.probedAt < PROBE_EVERY_MS) return;
    this.probing = true;
    this.probedAt = Date.now();
    void this.check().then((answer) => {
      // Some other error is an answer too: what is in between may know no health checks.
      const away = answer === Status.UNAVAILABLE || answer === Status.DEADLINE_EXCEEDED;
      this.suspect = away || (Buffer.isBuffer(answer) && answer.equals(NOT_SERVING));
      this.probing = false;
    });
  }

  private check(): Promise<Buffer | Status> {
    const same = (bytes: Buffer): Buffer => bytes;
    const options = { deadline: Date.now() + PROBE_MS };
    return new Promise((resolve) => {
      const done = (error: ServiceError | null, answer?: Buffer): void =>
        resolve(error ? error.code : (answer ?? Buffer.alloc(0)));
      this.client.makeUnaryRequest(CHECK, same, same, Buffer.alloc(0), new Metadata(), options, done);
    });
  }
}

/** Looks after one call: calls it off, with `lost` set, when its replica is frozen. */
export class Watch {
  lost = false;
  private readonly client: Client;
  private heardAt = Date.now();
  private timer: NodeJS.Timeout;
  private over = false;

  constructor(
    private readonly peer: Peer,
    private readonly call: Cancellable,
  ) {
    this.client = peer.client;
    peer.watches.add(this);
    this.timer = this.arm(QUIET_MS);
  }

  /** Note that the replica sent something. */
  heard(): void {
    this.heardAt = Date.now();
  }

  /** End the call. */
  callOff(): void {
    this.call.cancel();
  }

  /** End the watch; the call is over, with an error or without. */
  stop(error?: ServiceError): void {
    this.over = true;
    this.peer.watches.delete(this);
    clearTimeout(this.timer);
    if (this.lost) {
      this.peer.suspect = true;
      // Else another call has seen it first.
      if (this.client === this.peer.client) this.peer.reconnect();
    }
    // A deadline says nothing about the replica: the call may just have been too long.
    if (error?.code === Status.UNAVAILABLE) this.peer.suspect = true;
  }

  private arm(delayMs: number): NodeJS.Timeout {
    return setTimeout(() => void this.look(), delayMs);
  }

  private async look(): Promise<void> {
    const quietMs = Date.now() - this.heardAt;
    if (quietMs < QUIET_MS) {
      this.timer = this.arm(QUIET_MS - quietMs);
      return;
    }
    const askedAt = Date.now();
    const frozen = await this.peer.frozen();
    if (this.over) return;
    if (frozen && this.heardAt < askedAt) {
      this.lost = true;
      this.callOff();
      return;
    }
    this.heard();
    this.timer = this.arm(QUIET_MS);
  }
}

/** The replicas that are known, by address; calls go round those that work. */
export class Peers {
  private readonly peers = new Map<string, Peer>();
  /** A count for each list: with one for all, who calls two services by turns would call only every
   * other replica of each. */
  private readonly turns = new Map<string, number>();
  private isClosed = false;

  constructor(private readonly connect: (address: string) => Client) {}

  /** The next of the replicas at `addresses` (host:port, separated by commas). */
  pick(addresses: string): Peer {
    if (this.isClosed) throw closed();
    const peers = addresses.split(",").map((address) => this.peer(address.trim()));
    const working = peers.filter((peer) => !peer.suspect);
    for (const peer of peers) if (peer.suspect) peer.lookAgain();
    const among = working.length ? working : peers;
    const turn = this.turns.get(addresses) ?? 0;
    this.turns.set(addresses, turn + 1);
    return among[turn % among.length] as Peer;
  }

  /** Close every connection, for good. */
  close(): void {
    this.isClosed = true;
    for (const peer of this.peers.values()) peer.close();
    this.peers.clear();
  }

  private peer(address: string): Peer {
    const known = this.peers.get(address) ?? new Peer(address, this.connect);
    this.peers.set(address, known);
    return known;
  }
}
