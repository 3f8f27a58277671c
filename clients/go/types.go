package echomesh

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	memoryv1 "echomesh/gen/echomesh/memory/v1"
)

// Conversation is a conversation of the user.
type Conversation struct {
	ID           string
	Title        string
	Metadata     map[string]string
	CreatedAt    time.Time
	UpdatedAt    time.Time
	MessageCount int64
}

// Message is a stored message; Seq is its position in the conversation, from 1.
type Message struct {
	ID             string
	ConversationID string
	Seq            int64
	Role           string
	Speaker        string
	Text           string
	Time           time.Time
	Metadata       map[string]string
}

// NewMessage is a message to import; Role is "user" or "assistant". The same RequestID is stored once,
// however often it is sent; unset, each is made anew.
type NewMessage struct {
	Role      string
	Text      string
	Speaker   string
	Time      time.Time
	Metadata  map[string]string
	RequestID string
}

// ImportResult is what became of imported messages. Duplicates were stored before. Refused are the request
// ids that were used before for something else: nothing of those messages is stored.
type ImportResult struct {
	Stored     int
	Duplicates int
	Refused    []string
}

// Memory is something remembered of the user.
type Memory struct {
	ID             string
	Version        int64
	Kind           string
	Text           string
	Speaker        string
	Time           time.Time
	Metadata       map[string]string
	ConversationID string
	MessageID      string
}

// RecallHit is a recalled memory; Scores say why it was found, by source.
type RecallHit struct {
	Memory Memory
	Score  float64
	Scores map[string]float64
}

// RecallResult holds hits, best first, and what could not take part.
type RecallResult struct {
	Hits     []RecallHit
	Degraded []string
}

// timestamp writes a time; the zero time is left out.
func timestamp(when time.Time) *timestamppb.Timestamp {
	if when.IsZero() {
		return nil
	}
	return timestamppb.New(when)
}

func readConversation(m *memoryv1.Conversation) Conversation {
	created, updated := m.GetCreatedAt().AsTime(), m.GetUpdatedAt().AsTime()
	return Conversation{m.GetId(), m.GetTitle(), m.GetMetadata(), created, updated, m.GetMessageCount()}
}

func readMessage(m *memoryv1.Message) Message {
	return Message{
		ID:             m.GetId(),
		ConversationID: m.GetConversationId(),
		Seq:            m.GetSeq(),
		Role:           name(m.GetRole(), "MESSAGE_ROLE_"),
		Speaker:        m.GetSpeaker(),
		Text:           m.GetText(),
		Time:           m.GetTime().AsTime(),
		Metadata:       m.GetMetadata(),
	}
}

var roles = map[string]memoryv1.MessageRole{
	"user":      memoryv1.MessageRole_MESSAGE_ROLE_USER,
	"assistant": memoryv1.MessageRole_MESSAGE_ROLE_ASSISTANT,
}

func writeMessage(m NewMessage) *memoryv1.NewMessage {
	return &memoryv1.NewMessage{
		RequestId: or(m.RequestID, newID),
		Role:      roles[m.Role],
		Speaker:   m.Speaker,
		Text:      m.Text,
		Time:      timestamp(m.Time),
		Metadata:  m.Metadata,
	}
}

func readMemory(m *memoryv1.Memory) Memory {
	return Memory{
		ID:             m.GetId(),
		Version:        m.GetVersion(),
		Kind:           name(m.GetKind(), "MEMORY_KIND_"),
		Text:           m.GetText(),
		Speaker:        m.GetSpeaker(),
		Time:           m.GetTime().AsTime(),
		Metadata:       m.GetMetadata(),
		ConversationID: m.GetConversationId(),
		MessageID:      m.GetMessageId(),
	}
}

func readHit(m *memoryv1.RecallHit) RecallHit {
	return RecallHit{readMemory(m.GetMemory()), m.GetScore(), readScores(m.GetScores())}
}

func readScores(m *memoryv1.RecallScores) map[string]float64 {
	scores := map[string]float64{}
	message := m.ProtoReflect()
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		scores[string(fields.Get(i).Name())] = message.Get(fields.Get(i)).Float()
	}
	return scores
}
