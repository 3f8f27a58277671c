package echomesh

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FieldViolation is what is wrong with one field of a request.
type FieldViolation struct {
	Field       string
	Description string
}

// Error says that a call failed.
//
// Reason names why: a value of ErrorReason without its prefix, empty if the mesh could not be reached at
// all. RetryAfter, if not nil, is when another try may succeed; TraceID finds the call in the logs.
// errors.Is finds context.Canceled and context.DeadlineExceeded in what ended so.
type Error struct {
	Code       codes.Code
	Message    string
	Reason     string
	Metadata   map[string]string
	Violations []FieldViolation
	RetryAfter *time.Duration
	TraceID    string
}

// Error says what happened in one line.
func (e *Error) Error() string {
	name := e.Reason
	if name == "" {
		name = e.Code.String()
	}
	text := name + ": " + e.Message
	if len(e.Violations) == 0 {
		return text
	}
	fields := make([]string, len(e.Violations))
	for i, violation := range e.Violations {
		fields[i] = violation.Field + ": " + violation.Description
	}
	return fmt.Sprintf("%s (%s)", text, strings.Join(fields, "; "))
}

// Unwrap gives the context's error for what was cancelled or too late.
func (e *Error) Unwrap() error {
	switch e.Code {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// GRPCStatus lets status.FromError and status.Code understand it.
func (e *Error) GRPCStatus() *status.Status {
	return status.New(e.Code, e.Message)
}

// fromRPC reads the details of a failed call.
func fromRPC(err error) *Error {
	known := status.Convert(err)
	failed := &Error{Code: known.Code(), Message: known.Message()}
	for _, detail := range known.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failed.Reason, failed.Metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, each := range detail.GetFieldViolations() {
				violation := FieldViolation{each.GetField(), each.GetDescription()}
				failed.Violations = append(failed.Violations, violation)
			}
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay().AsDuration()
			failed.RetryAfter = &delay
		case *errdetails.RequestInfo:
			failed.TraceID = detail.GetRequestId()
		}
	}
	return failed
}
