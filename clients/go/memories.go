package echomesh

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	memoryv1 "echomesh/gen/echomesh/memory/v1"
	routingv1 "echomesh/gen/echomesh/routing/v1"
)

const defaultPageSize = 100

// RememberOptions say more about what is to be remembered.
type RememberOptions struct {
	Speaker   string
	Time      time.Time
	Metadata  map[string]string
	RequestID string
}

// RecallOptions narrow what is recalled; unset ones do not narrow.
type RecallOptions struct {
	// Limit is at most 100. Unset: 10.
	Limit int
	// Asker is the name behind "I" and "my".
	Asker string
	// Since and Until: said at or after, and before.
	Since          time.Time
	Until          time.Time
	ConversationID string
	Speaker        string
	Metadata       map[string]string
}

// Remember stores something about the user; acknowledged only once it is durable.
func (u *User) Remember(ctx context.Context, text string, options *RememberOptions) (*Memory, error) {
	if options == nil {
		options = &RememberOptions{}
	}
	request := &memoryv1.RememberRequest{Memory: &memoryv1.NewMemory{
		RequestId: or(options.RequestID, newID),
		Text:      text,
		Speaker:   options.Speaker,
		Time:      timestamp(options.Time),
		Metadata:  options.Metadata,
	}}
	answer := &memoryv1.RememberResponse{}
	if err := u.call(ctx, memoryv1.MemoryService_Remember_FullMethodName, request, answer); err != nil {
		return nil, err
	}
	memory := readMemory(answer.GetMemory())
	return &memory, nil
}

// CorrectOptions say more about a correction.
type CorrectOptions struct {
	// RequestID: the same id corrects once, however often it is sent.
	RequestID string
}

// Recall gives what is relevant to a query, best first.
func (u *User) Recall(ctx context.Context, query string, options *RecallOptions) (*RecallResult, error) {
	if options == nil {
		options = &RecallOptions{}
	}
	filter := &memoryv1.MemoryFilter{
		Since:          timestamp(options.Since),
		Until:          timestamp(options.Until),
		ConversationId: options.ConversationID,
		Speaker:        options.Speaker,
		Metadata:       options.Metadata,
	}
	limit := int32(options.Limit)
	request := &memoryv1.RecallRequest{Query: query, Limit: limit, Asker: options.Asker, Filter: filter}
	answer := &memoryv1.RecallResponse{}
	if err := u.call(ctx, memoryv1.MemoryService_Recall_FullMethodName, request, answer); err != nil {
		return nil, err
	}
	return &RecallResult{each(answer.GetHits(), readHit), answer.GetDegraded()}, nil
}

// Correct replaces the text of a memory; the earlier version stays in its history.
func (u *User) Correct(
	ctx context.Context, memoryID, text string, options *CorrectOptions,
) (*Memory, error) {
	if options == nil {
		options = &CorrectOptions{}
	}
	request := &memoryv1.UpdateMemoryRequest{
		RequestId:  or(options.RequestID, newID),
		Memory:     &memoryv1.Memory{Id: memoryID, Text: text},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"text"}},
	}
	answer := &memoryv1.UpdateMemoryResponse{}
	if err := u.call(ctx, memoryv1.MemoryService_UpdateMemory_FullMethodName, request, answer); err != nil {
		return nil, err
	}
	memory := readMemory(answer.GetMemory())
	return &memory, nil
}

// Forget erases a memory for good.
func (u *User) Forget(ctx context.Context, memoryID string) error {
	request := &memoryv1.ForgetMemoryRequest{MemoryId: memoryID}
	method := memoryv1.MemoryService_ForgetMemory_FullMethodName
	return u.call(ctx, method, request, &memoryv1.ForgetMemoryResponse{})
}

// Memories gives all memories, newest first; pages are fetched as they are needed.
func (u *User) Memories(ctx context.Context) iter.Seq2[Memory, error] {
	return pages(func(token string) ([]Memory, string, error) {
		request := &memoryv1.ListMemoriesRequest{PageSize: defaultPageSize, PageToken: token}
		answer := &memoryv1.ListMemoriesResponse{}
		err := u.call(ctx, memoryv1.MemoryService_ListMemories_FullMethodName, request, answer)
		return each(answer.GetMemories(), readMemory), answer.GetNextPageToken(), err
	})
}

// IndexStatus tells how many memories there are, and how many of them are not indexed yet.
func (u *User) IndexStatus(ctx context.Context) (memories, pending int64, err error) {
	answer := &memoryv1.GetIndexStatusResponse{}
	method := memoryv1.MemoryService_GetIndexStatus_FullMethodName
	err = u.call(ctx, method, &memoryv1.GetIndexStatusRequest{}, answer)
	return answer.GetMemories(), answer.GetPending(), err
}

// Explain tells how a reply came to be: by its own id or its question's, or by the request's.
func (u *User) Explain(
	ctx context.Context, messageID, requestID string,
) (*routingv1.ExplainResponse, error) {
	request := &routingv1.ExplainRequest{MessageId: messageID, RequestId: requestID}
	answer := &routingv1.ExplainResponse{}
	if err := u.call(ctx, routingv1.RoutingService_Explain_FullMethodName, request, answer); err != nil {
		return nil, err
	}
	return answer, nil
}

// pages gives everything that a list call has, page by page; an error is the last thing that comes.
func pages[T any](fetch func(token string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for token, first := "", true; first || token != ""; first = false {
			items, next, err := fetch(token)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			token = next
		}
	}
}
