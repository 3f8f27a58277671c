/** Connections to a mesh, found from one address. */

import { fromBinary, toBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import type { DescMethod } from "@bufbuild/protobuf";
import { Client, credentials, type ChannelOptions } from "@grpc/grpc-js";

import { MeshService } from "./gen/echomesh/routing/v1/routing_pb.js";
import { Peers, type Peer } from "./peers.js";
import { Mutex, type Scope } from "./scope.js";

const CHANNEL_OPTIONS: ChannelOptions = {
  // Servers allow a ping every 10 s on public listeners.
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 0,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
  // Else a new client to the same address would use the connection that was just given up.
  "grpc.use_local_subchannel_pool": 1,
  // Retries are session.ts's: gRPC would not keep them within one deadline.
  "grpc.enable_retries": 0,
  "grpc.service_config_disable_resolution": 1,
};

/** How a mesh is reached. */
export interface TransportOptions {
  /** PEM of the authorities that sign the servers' certificates. Unset: the system's. */
  rootCertificates?: Uint8Array | undefined;
  /** Unset: TLS unless the address is loopback. */
  tls?: boolean | undefined;
  /** The name in the servers' certificates, where it is not that of the address. */
  serverName?: string | undefined;
  /** The address is a forwarded port, and so are the other services' ports, at the same host. */
  forwarded?: boolean | undefined;
  /** Where auth, memory and routing are reached from here, in place of what the mesh says. */
  endpoints?: Partial<Record<"auth" | "memory" | "routing", string>> | undefined;
}

/** Asks the mesh for its addresses: a call that needs none itself. */
export type FindEndpoints = (peer: Peer, scope: Scope) => Promise<{ service: string; address: string }[]>;

/** Connections to a mesh, shared by a client and its `asUser`s. */
export class Transport {
  private readonly peers = new Peers((address) => this.connect(address));
  private readonly finding = new Mutex();
  private endpoints: Map<string, string> | undefined;

  constructor(
    private readonly address: string,
    private readonly options: TransportOptions,
    private readonly findEndpoints: FindEndpoints,
  ) {}

  /** A replica of the service that has this method; looks addresses up on first use. */
  async peer(method: DescMethod, scope: Scope): Promise<Peer> {
    const service = method.parent.typeName;
    if (service === MeshService.typeName) return this.peers.pick(this.address);
    const endpoints = await this.find(scope);
    return this.peers.pick(endpoints.get(service) ?? this.address);
  }

  /** Look the addresses up again: a service may have moved. */
  forgetEndpoints(): void {
    this.endpoints = undefined;
  }

  /** Close every connection. */
  close(): void {
    this.peers.close();
  }

  private find(scope: Scope): Promise<Map<string, string>> {
    return this.finding.run(scope, async () => {
      if (!this.endpoints) {
        const found = await this.findEndpoints(this.peers.pick(this.address), scope);
        this.endpoints = new Map(found.map((e) => [e.service, this.reached(e.service, e.address)]));
      }
      return this.endpoints;
    });
  }

  /** Where a service that the mesh says is at `address` is reached from here. */
  private reached(service: string, address: string): string {
    const given = this.options.endpoints?.[service.split(".")[1] as "auth"];
    if (given) return given;
    if (!this.options.forwarded) return address;
    return this.address.replace(/:\d+$/, "") + address.slice(address.lastIndexOf(":"));
  }

  private connect(address: string): Client {
    const { rootCertificates, serverName, tls = !isLoopback(address) } = this.options;
    if (!tls) return new Client(address, credentials.createInsecure(), CHANNEL_OPTIONS);
    const roots = rootCertificates ? Buffer.from(rootCertificates) : null;
    const named = serverName ? { "grpc.ssl_target_name_override": serverName } : {};
    return new Client(address, credentials.createSsl(roots), { ...CHANNEL_OPTIONS, ...named });
  }
}

/** True if the address names this machine, where TLS adds nothing. */
export function isLoopback(address: string): boolean {
  const host = address.replace(/^ipv4:/, "").replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** What grpc-js needs to know of a method. */
export function wire<I extends DescMessage, O extends DescMessage>(method: {
  parent: { typeName: string };
  name: string;
  input: I;
  output: O;
}) {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    write: (request: MessageShape<I>): Buffer => Buffer.from(toBinary(method.input, request)),
    read: (bytes: Buffer): MessageShape<O> => fromBinary(method.output, bytes),
  };
}

