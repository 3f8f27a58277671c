/** The one error of this package, made from google.rpc.Status. */

import { fromBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import { status as Status, type ServiceError } from "@grpc/grpc-js";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema, type Status as RpcStatus } from "./gen/google/rpc/status_pb.js";

const STATUS_KEY = "grpc-status-details-bin";

/** A gRPC status by name, such as "UNAVAILABLE". */
export type Code = keyof typeof Status;

/** What is wrong with one field of a request. */
export interface FieldViolation {
  field: string;
  description: string;
}

/** What an error tells beside its code and message; see there. */
export interface ErrorDetails {
  reason?: string;
  metadata?: Record<string, string>;
  violations?: FieldViolation[];
  retryAfterMs?: number | undefined;
  traceId?: string;
}

/**
 * A call failed.
 *
 * `reason` names why: a value of ErrorReason without its prefix, empty if the mesh could not be reached
 * at all. `retryAfterMs` is when another try may succeed; `traceId` finds the call in the logs.
 */
export class EchomeshError extends Error {
  override readonly name = "EchomeshError";
  readonly reason: string;
  readonly metadata: Record<string, string>;
  readonly violations: FieldViolation[];
  readonly retryAfterMs: number | undefined;
  readonly traceId: string;

  constructor(
    readonly code: Code,
    message: string,
    details: ErrorDetails = {},
  ) {
    super(message);
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryAfterMs = details.retryAfterMs;
    this.traceId = details.traceId ?? "";
  }
}

/** The error of a call whose client was closed, before it or under it. */
export function closed(): EchomeshError {
  return new EchomeshError("CANCELLED", "the client is closed");
}

/** Read the details of a failed call; `traceId` is that of one that was not answered. */
export function fromServiceError(error: ServiceError, traceId: string): EchomeshError {
  const status = statusOf(error);
  const info = detail(status, ErrorInfoSchema);
  const retry = detail(status, RetryInfoSchema);
  return new EchomeshError(Status[error.code] as Code, error.details, {
    reason: info?.reason ?? "",
    metadata: info?.metadata ?? {},
    violations: (detail(status, BadRequestSchema)?.fieldViolations ?? []).map((violation) => ({
      field: violation.field,
      description: violation.description,
    })),
    retryAfterMs: retry && (retry.retryDelay ? durationMs(retry.retryDelay) : 0),
    traceId: detail(status, RequestInfoSchema)?.requestId ?? traceId,
  });
}

function statusOf(error: ServiceError): RpcStatus | undefined {
  const [bytes] = error.metadata?.get(STATUS_KEY) ?? [];
  return bytes instanceof Uint8Array ? fromBinary(StatusSchema, bytes) : undefined;
}

function detail<D extends DescMessage>(
  status: RpcStatus | undefined,
  schema: D,
): MessageShape<D> | undefined {
  for (const packed of status?.details ?? []) {
    const message = anyUnpack(packed, schema);
    if (message) return message;
  }
  return undefined;
}
