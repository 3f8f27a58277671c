package main

import (
	"errors"
	"reflect"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"echomesh"
	authv1 "echomesh/gen/echomesh/auth/v1"
	memoryv1 "echomesh/gen/echomesh/memory/v1"
	routingv1 "echomesh/gen/echomesh/routing/v1"
)

// What the SDK gives, by the judge's names.

// plain is a value by the judge's names: snake case, durations in seconds.
func plain(value reflect.Value) any {
	switch value.Kind() {
	case reflect.Invalid:
		return nil
	case reflect.Pointer, reflect.Interface:
		return plain(value.Elem())
	case reflect.Slice:
		all := []any{}
		for i := range value.Len() {
			all = append(all, plain(value.Index(i)))
		}
		return all
	case reflect.Map:
		all := map[string]any{}
		for _, key := range value.MapKeys() {
			all[key.String()] = plain(value.MapIndex(key))
		}
		return all
	case reflect.Struct:
		return plainStruct(value)
	default:
		return value.Interface()
	}
}

func plainStruct(value reflect.Value) any {
	if when, ok := value.Interface().(time.Time); ok {
		return when
	}
	all := map[string]any{}
	for i := range value.NumField() {
		name, field := snake(value.Type().Field(i).Name), value.Field(i)
		if duration, ok := field.Interface().(time.Duration); ok {
			all[name+"_s"] = duration.Seconds()
			continue
		}
		all[name] = plain(field)
	}
	return all
}

// snake turns UsedMemoryIDs into used_memory_ids.
func snake(name string) string {
	name = strings.NewReplacer("IDs", "Ids", "ID", "Id", "JSON", "Json").Replace(name)
	var out strings.Builder
	for i, letter := range name {
		if i > 0 && letter >= 'A' && letter <= 'Z' {
			out.WriteByte('_')
		}
		out.WriteRune(letter)
	}
	return strings.ToLower(out.String())
}

var codeNames = map[codes.Code]string{
	codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND",
	codes.AlreadyExists: "ALREADY_EXISTS", codes.PermissionDenied: "PERMISSION_DENIED",
	codes.ResourceExhausted: "RESOURCE_EXHAUSTED", codes.FailedPrecondition: "FAILED_PRECONDITION",
	codes.Aborted: "ABORTED", codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL",
	codes.Unavailable: "UNAVAILABLE", codes.Unauthenticated: "UNAUTHENTICATED",
}

// told is an error by the judge's names.
func told(err error) map[string]any {
	var failed *echomesh.Error
	if !errors.As(err, &failed) {
		return map[string]any{"code": "DRIVER", "message": err.Error()}
	}
	violations := []map[string]string{}
	for _, each := range failed.Violations {
		violation := map[string]string{"field": each.Field, "description": each.Description}
		violations = append(violations, violation)
	}
	all := map[string]any{
		"code": codeNames[failed.Code], "message": failed.Message, "reason": failed.Reason,
		"metadata": failed.Metadata, "violations": violations, "trace_id": failed.TraceID,
	}
	if failed.Metadata == nil {
		all["metadata"] = map[string]string{}
	}
	if failed.RetryAfter != nil {
		all["retry_after_s"] = failed.RetryAfter.Seconds()
	}
	return all
}

func retryTable() map[string]int {
	table := map[string]int{}
	for _, service := range []grpc.ServiceDesc{
		authv1.AdminService_ServiceDesc, authv1.AuthService_ServiceDesc,
		memoryv1.ConversationService_ServiceDesc, memoryv1.MemoryService_ServiceDesc,
		routingv1.ChatService_ServiceDesc, routingv1.MeshService_ServiceDesc,
		routingv1.RoutingService_ServiceDesc,
	} {
		names := []string{}
		for _, method := range service.Methods {
			names = append(names, method.MethodName)
		}
		for _, stream := range service.Streams {
			names = append(names, stream.StreamName)
		}
		for _, name := range names {
			full := "/" + service.ServiceName + "/" + name
			table[service.ServiceName+"."+name] = echomesh.MaxAttempts(full)
		}
	}
	return table
}
