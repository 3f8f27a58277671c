package echomesh

import (
	"context"
	"errors"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	memoryv1 "echomesh/gen/echomesh/memory/v1"
)

const (
	// One call takes at most 500 messages and 4 MiB; half of that is stored well within its time.
	partMessages = 500
	partBytes    = 2 << 20
)

// MessagesOptions say which messages of a conversation to give.
type MessagesOptions struct {
	NewestFirst bool
	// PageSize is how many are fetched at a time; at most 500. Unset: 100.
	PageSize int
}

// ImportMessages stores earlier messages; one whose request id was used for another is left out. Many or
// long ones are sent in several calls, each of which is one transaction.
func (u *User) ImportMessages(
	ctx context.Context, conversationID string, messages []NewMessage,
) (*ImportResult, error) {
	for _, message := range messages {
		if _, ok := roles[message.Role]; !ok {
			return nil, &Error{Code: codes.InvalidArgument, Message: "role must be user or assistant"}
		}
	}
	result := &ImportResult{}
	for _, part := range parts(each(messages, writeMessage)) {
		if err := u.appendMessages(ctx, conversationID, part, result); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// appendMessages stores one part; that all of it is refused is no failure of an import.
func (u *User) appendMessages(
	ctx context.Context, conversationID string, part []*memoryv1.NewMessage, result *ImportResult,
) error {
	request := &memoryv1.AppendMessagesRequest{ConversationId: conversationID, Messages: part}
	answer := &memoryv1.AppendMessagesResponse{}
	err := u.call(ctx, memoryv1.ConversationService_AppendMessages_FullMethodName, request, answer)
	var failed *Error
	if errors.As(err, &failed) && failed.Reason == "REQUEST_ID_REUSED" {
		for _, message := range part {
			result.Refused = append(result.Refused, message.GetRequestId())
		}
		return nil
	}
	result.Stored += int(answer.GetStored())
	result.Duplicates += int(answer.GetDuplicates())
	for _, refused := range answer.GetRefused() {
		result.Refused = append(result.Refused, part[refused.GetIndex()].GetRequestId())
	}
	return err
}

// Conversations gives all conversations, newest first.
func (u *User) Conversations(ctx context.Context) iter.Seq2[Conversation, error] {
	return pages(func(token string) ([]Conversation, string, error) {
		request := &memoryv1.ListConversationsRequest{PageSize: defaultPageSize, PageToken: token}
		answer := &memoryv1.ListConversationsResponse{}
		method := memoryv1.ConversationService_ListConversations_FullMethodName
		err := u.call(ctx, method, request, answer)
		return each(answer.GetConversations(), readConversation), answer.GetNextPageToken(), err
	})
}

// Messages gives the messages of a conversation in order, or backwards from the newest.
func (u *User) Messages(
	ctx context.Context, conversationID string, options *MessagesOptions,
) iter.Seq2[Message, error] {
	if options == nil {
		options = &MessagesOptions{}
	}
	size := options.PageSize
	if size == 0 {
		size = defaultPageSize
	}
	return pages(func(token string) ([]Message, string, error) {
		request := &memoryv1.ListMessagesRequest{
			ConversationId: conversationID,
			PageSize:       int32(size),
			PageToken:      token,
			Descending:     options.NewestFirst,
		}
		answer := &memoryv1.ListMessagesResponse{}
		err := u.call(ctx, memoryv1.ConversationService_ListMessages_FullMethodName, request, answer)
		return each(answer.GetMessages(), readMessage), answer.GetNextPageToken(), err
	})
}

// DeleteConversation deletes a conversation with its memories; it tells how many messages it had.
func (u *User) DeleteConversation(ctx context.Context, conversationID string) (int64, error) {
	request := &memoryv1.DeleteConversationRequest{ConversationId: conversationID}
	answer := &memoryv1.DeleteConversationResponse{}
	err := u.call(ctx, memoryv1.ConversationService_DeleteConversation_FullMethodName, request, answer)
	return answer.GetDeletedMessages(), err
}

// parts splits messages, in order, into what one call may carry.
func parts(messages []*memoryv1.NewMessage) [][]*memoryv1.NewMessage {
	var all [][]*memoryv1.NewMessage
	var part []*memoryv1.NewMessage
	size := 0
	for _, message := range messages {
		bytes := proto.Size(message)
		if len(part) == partMessages || (len(part) > 0 && size+bytes > partBytes) {
			all, part, size = append(all, part), nil, 0
		}
		part, size = append(part, message), size+bytes
	}
	if len(part) > 0 {
		all = append(all, part)
	}
	return all
}
