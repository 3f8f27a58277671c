package echomesh

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	modelsv1 "echomesh/gen/echomesh/models/v1"
	routingv1 "echomesh/gen/echomesh/routing/v1"
)

// The server closes a stream right after its final frame.
const endWait = time.Second

// Tier bounds how soon the first text of a reply must come.
type Tier string

// Tiers, with the time of each.
const (
	TierInstant  Tier = "instant"  // 0.5 s
	TierFast     Tier = "fast"     // 2 s
	TierStandard Tier = "standard" // 5 s
)

var tiers = map[Tier]routingv1.Tier{
	"":           routingv1.Tier_TIER_UNSPECIFIED,
	TierInstant:  routingv1.Tier_TIER_INSTANT,
	TierFast:     routingv1.Tier_TIER_FAST,
	TierStandard: routingv1.Tier_TIER_STANDARD,
}

// ChatOptions say how a message is to be answered; what is unset is the mesh's choice.
type ChatOptions struct {
	// ConversationID is made on first use. Unset: "default".
	ConversationID string
	Tier           Tier
	Model          string
	// Speaker is the user's name, for prompts and for "I" in questions.
	Speaker string
	Persona string
	// Private: nothing is stored.
	Private bool
	// NoRecall: nothing is recalled.
	NoRecall bool
	// Detach: the reply is finished and stored even if this call ends early.
	Detach bool
	// ParentMessageID is the message this one continues from: regenerate, edit, branch.
	ParentMessageID string
	// MessageKey names the message: one that its conversation has already is answered anew and not
	// stored twice.
	MessageKey string
	// Instructions are what the application tells the model: a system prompt.
	Instructions string
	// History is the conversation before this message, oldest first. Unless it is nil, also if it is
	// empty, the model is shown this in place of what is stored, and it is stored nowhere.
	History []*modelsv1.ChatMessage
	Tools   []*modelsv1.Tool
	// ToolChoice says which tools the model may call: "" or "auto" as it likes, "none", "required" at
	// least one, or a tool's name that one.
	ToolChoice     string
	ToolMessages   []*modelsv1.ChatMessage
	ResponseFormat *modelsv1.ResponseFormat
	Sampling       *modelsv1.Sampling
	Metadata       map[string]string
	// RequestID: the same id is answered once, however often it is sent.
	RequestID string
}

// Chat sends a message and gives the frames of the reply; the last one is Final.
//
// If a replica of the mesh is lost the same request is tried again: a Restart frame then says that the text
// so far is void. An error is the last thing that comes. Leaving the loop early cancels the reply, unless
// Detach.
func (u *User) Chat(ctx context.Context, text string, options *ChatOptions) iter.Seq2[Frame, error] {
	request, err := chatRequest(text, options)
	return func(yield func(Frame, error) bool) {
		if err != nil {
			yield(nil, err)
			return
		}
		ctx, cancel := begin(ctx, defaultChatTimeout)
		defer cancel()
		method := routingv1.ChatService_Chat_FullMethodName
		chat := &chat{session: u.session, again: newAttempts(u.session, method), yield: yield}
		for {
			err := chat.attempt(ctx, request)
			if chat.over {
				return
			}
			if err := chat.again.after(ctx, err); err != nil {
				yield(nil, err)
				return
			}
			if chat.hadOutput && !chat.give(Restart{"reconnected"}) {
				return
			}
		}
	}
}

// Reply sends a message and waits for the whole reply.
func (u *User) Reply(ctx context.Context, text string, options *ChatOptions) (string, *Final, error) {
	var whole strings.Builder
	for frame, err := range u.Chat(ctx, text, options) {
		if err != nil {
			return "", nil, err
		}
		switch frame := frame.(type) {
		case Restart:
			whole.Reset()
		case Text:
			whole.WriteString(frame.Text)
		case Final:
			return whole.String(), &frame, nil
		}
	}
	return "", nil, &Error{Code: codes.Unavailable, Message: "the reply ended without a final frame"}
}

// chat is one call of Chat: all its attempts.
type chat struct {
	session *session
	again   *attempts
	yield   func(Frame, error) bool
	// The client has text or tool calls that a new attempt would make void.
	hadOutput bool
	// The final frame was given, or the caller left.
	over bool
}

// errBrokeOff: a stream ended well but without its final frame; another attempt may bring it.
var errBrokeOff = status.Error(codes.Unavailable, "the stream broke off")

// attempt gives the frames of one attempt, and returns why it ended before its final frame.
func (c *chat) attempt(ctx context.Context, request *routingv1.ChatRequest) error {
	authorized, err := c.again.authorized(ctx)
	if err != nil {
		return err
	}
	at, err := c.session.transport.peer(authorized, serviceOf(routingv1.ChatService_Chat_FullMethodName))
	if err != nil {
		return err
	}
	conn := at.current()
	watched, watch := at.watching(traced(authorized), conn)
	stream, err := routingv1.NewChatServiceClient(conn).Chat(watched, request)
	for err == nil && !c.over {
		var response *routingv1.ChatResponse
		if response, err = stream.Recv(); err == nil {
			watch.heard()
			c.take(read(response), func() { letEnd(stream, watch) })
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = watch.stop(watched, err); err != nil {
		return err
	}
	return errBrokeOff
}

// take gives a frame to the caller; of the final one its stream has ended before.
func (c *chat) take(frame Frame, end func()) {
	if frame == nil {
		return
	}
	_, final := frame.(Final)
	if final {
		end()
	}
	c.over = !c.give(frame) || final
}

func (c *chat) give(frame Frame) bool {
	switch frame.(type) {
	case Text, ToolCall:
		c.hadOutput = true
	case Restart:
		c.hadOutput = false
	}
	return c.yield(frame, nil)
}

// letEnd lets a stream end by itself after its final frame: cancelled, it would count as that.
func letEnd(stream interface {
	Recv() (*routingv1.ChatResponse, error)
}, watch *watch) {
	timer := time.AfterFunc(endWait, func() { watch.cancel(nil) })
	defer timer.Stop()
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}

func chatRequest(text string, options *ChatOptions) (*routingv1.ChatRequest, error) {
	if options == nil {
		options = &ChatOptions{}
	}
	tier, ok := tiers[options.Tier]
	if !ok {
		return nil, &Error{Code: codes.InvalidArgument, Message: "tier must be instant, fast or standard"}
	}
	store, recall := !options.Private, !options.NoRecall
	var history *routingv1.History
	if options.History != nil {
		history = &routingv1.History{Messages: options.History}
	}
	return &routingv1.ChatRequest{
		RequestId:       or(options.RequestID, newID),
		ConversationId:  or(options.ConversationID, func() string { return "default" }),
		Text:            text,
		Tier:            tier,
		Model:           options.Model,
		ParentMessageId: options.ParentMessageID,
		MessageKey:      options.MessageKey,
		Instructions:    options.Instructions,
		History:         history,
		Store:           &store,
		Recall:          &recall,
		Detach:          options.Detach,
		Tools:           options.Tools,
		ToolChoice:      options.ToolChoice,
		ToolMessages:    options.ToolMessages,
		ResponseFormat:  options.ResponseFormat,
		Sampling:        options.Sampling,
		Persona:         options.Persona,
		Speaker:         options.Speaker,
		Metadata:        options.Metadata,
	}, nil
}

// or is the text, or what makes one if it is empty.
func or(text string, make func() string) string {
	if text == "" {
		return make()
	}
	return text
}
