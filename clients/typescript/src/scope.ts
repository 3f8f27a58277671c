/** What one call of the client has for all its attempts together: its time, its signal, its trace. */

import { randomBytes } from "node:crypto";

import { EchomeshError } from "./errors.js";

/** Options of every call. */
export interface CallOptions {
  /** Aborting it ends the call, which then throws the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Milliseconds for all attempts of the call together. */
  timeoutMs?: number | undefined;
}

/** A call of the client, however often it is tried and whatever it needs (signing in, addresses). */
export class Scope {
  readonly signal: AbortSignal | undefined;
  private readonly ends: number;
  /** What finds the call in the logs of the mesh. */
  readonly traceId: string;

  /** `traceparent` is the W3C trace context to continue; without one a trace begins here. */
  constructor(options: CallOptions, defaultTimeoutMs: number, traceparent?: string) {
    this.signal = options.signal;
    this.ends = performance.now() + (options.timeoutMs ?? defaultTimeoutMs);
    this.traceId = traceparent?.split("-")[1] ?? randomBytes(16).toString("hex");
  }

  /** Milliseconds left, never below zero. */
  remainingMs(): number {
    return Math.max(0, this.ends - performance.now());
  }

  /** When the time is up, by the clock on the wall, as grpc-js wants it. */
  deadline(): number {
    return Date.now() + this.remainingMs();
  }

  /** The trace context of one attempt. */
  traceparent(): string {
    return `00-${this.traceId}-${randomBytes(8).toString("hex")}-01`;
  }

  /** Wait for so many milliseconds, but no longer than this call may take. */
  async sleep(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    try {
      await this.within(new Promise<void>((resolve) => (timer = setTimeout(resolve, ms))));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Wait for what another call is doing, but no longer than this one may take. */
  async within<T>(work: Promise<T>): Promise<T> {
    this.signal?.throwIfAborted();
    const { traceId } = this;
    const late = new EchomeshError("DEADLINE_EXCEEDED", "the deadline has passed", { traceId });
    let stop = (): void => {};
    const over = new Promise<never>((_, reject) => {
      const timer = setTimeout(() => reject(late), this.remainingMs());
      const abort = (): void => reject(this.signal?.reason);
      this.signal?.addEventListener("abort", abort, { once: true });
      stop = (): void => {
        clearTimeout(timer);
        this.signal?.removeEventListener("abort", abort);
      };
    });
    try {
      return await Promise.race([work, over]);
    } finally {
      stop();
    }
  }
}

/** Work that is done by one call at a time; the others wait for as long as their scopes allow. */
export class Mutex {
  private tail: Promise<void> = Promise.resolve();

  async run<T>(scope: Scope, work: () => Promise<T>): Promise<T> {
    const before = this.tail;
    let release = (): void => {};
    const done = new Promise<void>((resolve) => (release = resolve));
    this.tail = before.then(() => done);
    try {
      await scope.within(before);
      return await work();
    } finally {
      release();
    }
  }
}

/** Resolves when the work is done, but no later than after so many milliseconds. */
export async function atMost(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work, late]);
  clearTimeout(timer);
}
