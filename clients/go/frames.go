package echomesh

import (
	"strings"
	"time"

	memoryv1 "echomesh/gen/echomesh/memory/v1"
	routingv1 "echomesh/gen/echomesh/routing/v1"
)

// Frame is what a chat yields: Accepted, Progress, Decision, MemoriesUsed, Text, ToolCall, Restart, Resume
// or Final.
type Frame interface{ isFrame() }

// Accepted: the request was understood; Replayed if the turn had been finished before.
type Accepted struct {
	RequestID      string
	ConversationID string
	TraceID        string
	Replayed       bool
	AssistantName  string
}

// Progress is what the mesh is doing: "queued", "recalling", "waking" or "generating".
type Progress struct {
	Stage    string
	Position int
	Estimate time.Duration
}

// Decision tells tier ("instant", "fast", "standard"), query type and model, and why.
type Decision struct {
	Tier      string
	QueryType string
	Model     string
	Reason    string
}

// UsedMemory is a memory that the reply may rest on; Time is when it was said.
type UsedMemory struct {
	MemoryID       string
	Text           string
	Speaker        string
	Time           time.Time
	Score          float64
	ConversationID string
}

// MemoriesUsed are the memories put before the model, best first.
type MemoriesUsed struct {
	Memories []UsedMemory
}

// Text is more text of the reply.
type Text struct {
	Text string
}

// ToolCall: the model asks for a tool; ArgumentsJSON is JSON text as the model wrote it.
type ToolCall struct {
	ID            string
	Name          string
	ArgumentsJSON string
}

// Restart: discard all text so far, the reply begins again.
type Restart struct {
	Reason string
}

// Resume: another model goes on; the text so far stays.
type Resume struct {
	Model string
}

// Final: the reply is complete and its fate is known.
//
// MessageStored and ReplyStored are "stored", "not_stored" or "unknown"; times count from the start of the
// call, as the mesh measured them. Confidence (0..1) says how likely the memories hold an answer; nil
// where a language model answered.
type Final struct {
	MessageID        string
	ReplyID          string
	FinishReason     string
	MessageStored    string
	ReplyStored      string
	Degraded         []string
	Tier             string
	Model            string
	FirstText        time.Duration
	Total            time.Duration
	PromptTokens     int
	CompletionTokens int
	TraceID          string
	UsedMemoryIDs    []string
	Confidence       *float64
}

func (Accepted) isFrame()     {}
func (Progress) isFrame()     {}
func (Decision) isFrame()     {}
func (MemoriesUsed) isFrame() {}
func (Text) isFrame()         {}
func (ToolCall) isFrame()     {}
func (Restart) isFrame()      {}
func (Resume) isFrame()       {}
func (Final) isFrame()        {}

// name tells an enum's value without its prefix: TIER_INSTANT is "instant"; one that is newer than this
// client keeps its number.
func name(value interface{ String() string }, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

// read gives the typed frame, or nil for a kind that is newer than this client.
func read(response *routingv1.ChatResponse) Frame {
	switch frame := response.GetFrame().(type) {
	case *routingv1.ChatResponse_Accepted:
		m := frame.Accepted
		return Accepted{m.RequestId, m.ConversationId, m.TraceId, m.Replayed, m.AssistantName}
	case *routingv1.ChatResponse_Progress:
		m := frame.Progress
		return Progress{name(m.Stage, "STAGE_"), int(m.Position), m.Estimate.AsDuration()}
	case *routingv1.ChatResponse_Decision:
		return readDecision(frame.Decision)
	case *routingv1.ChatResponse_Memories:
		return MemoriesUsed{each(frame.Memories.Memories, readUsedMemory)}
	case *routingv1.ChatResponse_Text:
		return Text{frame.Text.Text}
	case *routingv1.ChatResponse_ToolCall:
		m := frame.ToolCall
		return ToolCall{m.Id, m.Name, m.ArgumentsJson}
	case *routingv1.ChatResponse_Restart:
		return Restart{frame.Restart.Reason}
	case *routingv1.ChatResponse_Resume:
		return Resume{frame.Resume.Model}
	case *routingv1.ChatResponse_Final:
		return readFinal(frame.Final)
	default:
		return nil
	}
}

func readDecision(m *routingv1.Decision) Decision {
	return Decision{name(m.Tier, "TIER_"), name(m.QueryType, "QUERY_TYPE_"), m.Model, m.Reason}
}

func readUsedMemory(m *routingv1.UsedMemory) UsedMemory {
	return UsedMemory{m.MemoryId, m.Text, m.Speaker, m.Time.AsTime(), m.Score, m.ConversationId}
}

func readFinal(m *routingv1.Final) Final {
	return Final{
		MessageID:        m.MessageId,
		ReplyID:          m.ReplyId,
		FinishReason:     finishReason(m.FinishReason),
		MessageStored:    name(m.MessageStored, "STORE_RESULT_"),
		ReplyStored:      name(m.ReplyStored, "STORE_RESULT_"),
		Degraded:         m.Degraded,
		Tier:             name(m.Tier, "TIER_"),
		Model:            m.Model,
		FirstText:        m.FirstText.AsDuration(),
		Total:            m.Total.AsDuration(),
		PromptTokens:     int(m.Usage.GetPromptTokens()),
		CompletionTokens: int(m.Usage.GetCompletionTokens()),
		TraceID:          m.TraceId,
		UsedMemoryIDs:    m.UsedMemoryIds,
		Confidence:       m.Confidence,
	}
}

func finishReason(reason memoryv1.FinishReason) string {
	return name(reason, "FINISH_REASON_")
}

// each applies a function to every item.
func each[In, Out any](items []In, read func(In) Out) []Out {
	out := make([]Out, len(items))
	for i, item := range items {
		out[i] = read(item)
	}
	return out
}
