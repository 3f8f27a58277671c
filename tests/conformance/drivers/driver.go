// The Go SDK's driver; it needs the SDK's module and nothing else.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"reflect"
	"sync"
	"time"

	"echomesh"
	modelsv1 "echomesh/gen/echomesh/models/v1"
)

// request is what the judge asks, with the arguments of every operation.
type request struct {
	ID             int               `json:"id"`
	Op             string            `json:"op"`
	On             string            `json:"on"`
	Target         int               `json:"target"`
	Address        string            `json:"address"`
	APIKey         string            `json:"api_key"`
	Endpoints      map[string]string `json:"endpoints"`
	TLS            *bool             `json:"tls"`
	Roots          string            `json:"root_certificates"`
	ServerName     string            `json:"server_name"`
	TimeoutS       float64           `json:"timeout_s"`
	Name           string            `json:"name"`
	User           string            `json:"user"`
	Text           string            `json:"text"`
	Query          string            `json:"query"`
	Limit          int               `json:"limit"`
	Speaker        string            `json:"speaker"`
	Time           time.Time         `json:"time"`
	Since          time.Time         `json:"since"`
	Until          time.Time         `json:"until"`
	Metadata       map[string]string `json:"metadata"`
	RequestID      string            `json:"request_id"`
	ConversationID string            `json:"conversation_id"`
	MemoryID       string            `json:"memory_id"`
	MessageID      string            `json:"message_id"`
	Parent         string            `json:"parent_message_id"`
	Tier           echomesh.Tier     `json:"tier"`
	Store          *bool             `json:"store"`
	Recall         *bool             `json:"recall"`
	Detach         bool              `json:"detach"`
	LeaveAfter     int               `json:"leave_after"`
	FailAfter      int               `json:"fail_after"`
	MessageKey     string            `json:"message_key"`
	Instructions   string            `json:"instructions"`
	History        []said            `json:"history"`
	Tools          []tool            `json:"tools"`
	ToolChoice     string            `json:"tool_choice"`
	PageSize       int               `json:"page_size"`
	NewestFirst    bool              `json:"newest_first"`
	Messages       []newMessage      `json:"messages"`
}

type newMessage struct {
	Role      string            `json:"role"`
	Text      string            `json:"text"`
	Speaker   string            `json:"speaker"`
	Time      time.Time         `json:"time"`
	Metadata  map[string]string `json:"metadata"`
	RequestID string            `json:"request_id"`
}

type said struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type tool struct {
	Name string `json:"name"`
}

type driver struct {
	mu      sync.Mutex
	clients map[string]*echomesh.Client
	users   map[string]*echomesh.User
	cancels map[int]context.CancelFunc
}

func main() {
	d := &driver{
		clients: map[string]*echomesh.Client{},
		users:   map[string]*echomesh.User{},
		cancels: map[int]context.CancelFunc{},
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			panic(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		d.mu.Lock()
		d.cancels[r.ID] = cancel
		d.mu.Unlock()
		go d.answer(ctx, r)
	}
}

var saying sync.Mutex

func say(id int, what string, value any) {
	line, err := json.Marshal(map[string]any{"id": id, what: value})
	if err != nil {
		panic(err)
	}
	saying.Lock()
	defer saying.Unlock()
	fmt.Println(string(line))
}

func (d *driver) answer(ctx context.Context, r request) {
	result, err := d.do(ctx, r)
	d.mu.Lock()
	d.cancels[r.ID]()
	delete(d.cancels, r.ID)
	d.mu.Unlock()
	if err != nil {
		say(r.ID, "error", told(err))
		return
	}
	say(r.ID, "ok", plain(reflect.ValueOf(result)))
}

func (d *driver) do(ctx context.Context, r request) (any, error) {
	switch r.Op {
	case "connect":
		return nil, d.connect(r)
	case "as_user":
		d.mu.Lock()
		defer d.mu.Unlock()
		d.users[r.Name] = d.clients[r.On].AsUser(r.User)
		return nil, nil
	case "close":
		d.mu.Lock()
		client := d.clients[r.On]
		d.mu.Unlock()
		return nil, client.Close()
	case "cancel":
		d.mu.Lock()
		defer d.mu.Unlock()
		if cancel, ok := d.cancels[r.Target]; ok {
			cancel()
		}
		return nil, nil
	case "retry_table":
		return retryTable(), nil
	}
	if r.TimeoutS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.TimeoutS*float64(time.Second)))
		defer cancel()
	}
	d.mu.Lock()
	client, user := d.clients[r.On], d.users[r.On]
	d.mu.Unlock()
	if r.Op == "endpoints" {
		return client.Endpoints(ctx)
	}
	return call(ctx, user, r)
}

func (d *driver) connect(r request) error {
	timeout := time.Duration(r.TimeoutS * float64(time.Second))
	options := echomesh.Options{
		APIKey: r.APIKey, Endpoints: r.Endpoints, Timeout: timeout, TLS: r.TLS, ServerName: r.ServerName,
	}
	if r.Roots != "" {
		options.RootCertificates = []byte(r.Roots)
	}
	client, err := echomesh.Connect(r.Address, options)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients[r.On], d.users[r.On] = client, &client.User
	return nil
}

func call(ctx context.Context, user *echomesh.User, r request) (any, error) {
	switch r.Op {
	case "chat":
		return nil, chat(ctx, user, r)
	case "reply":
		text, final, err := user.Reply(ctx, r.Text, chatOptions(r))
		return map[string]any{"text": text, "final": final}, err
	case "remember":
		options := &echomesh.RememberOptions{
			Speaker: r.Speaker, Time: r.Time, Metadata: r.Metadata, RequestID: r.RequestID,
		}
		return user.Remember(ctx, r.Text, options)
	case "recall":
		options := &echomesh.RecallOptions{
			Limit: r.Limit, Since: r.Since, Until: r.Until, Speaker: r.Speaker,
			ConversationID: r.ConversationID, Metadata: r.Metadata,
		}
		return user.Recall(ctx, r.Query, options)
	case "correct":
		return user.Correct(ctx, r.MemoryID, r.Text, &echomesh.CorrectOptions{RequestID: r.RequestID})
	case "forget":
		return nil, user.Forget(ctx, r.MemoryID)
	case "memories":
		return collect(user.Memories(ctx))
	case "index_status":
		memories, pending, err := user.IndexStatus(ctx)
		return map[string]any{"memories": memories, "pending": pending}, err
	case "conversations":
		return collect(user.Conversations(ctx))
	case "messages":
		options := &echomesh.MessagesOptions{NewestFirst: r.NewestFirst, PageSize: r.PageSize}
		return collect(user.Messages(ctx, r.ConversationID, options))
	case "import_messages":
		messages := make([]echomesh.NewMessage, len(r.Messages))
		for i, message := range r.Messages {
			messages[i] = echomesh.NewMessage(message)
		}
		return user.ImportMessages(ctx, r.ConversationID, messages)
	case "delete_conversation":
		return user.DeleteConversation(ctx, r.ConversationID)
	case "explain":
		answer, err := user.Explain(ctx, r.MessageID, "")
		return map[string]any{"model": answer.GetDecision().GetModel(), "reply_id": answer.GetReplyId()}, err
	}
	return nil, fmt.Errorf("no such operation: %s", r.Op)
}

var roles = map[string]modelsv1.ChatRole{
	"user": modelsv1.ChatRole_CHAT_ROLE_USER, "assistant": modelsv1.ChatRole_CHAT_ROLE_ASSISTANT,
}

func chatOptions(r request) *echomesh.ChatOptions {
	var history []*modelsv1.ChatMessage
	if r.History != nil {
		history = []*modelsv1.ChatMessage{}
	}
	for _, each := range r.History {
		history = append(history, &modelsv1.ChatMessage{Role: roles[each.Role], Content: each.Content})
	}
	var tools []*modelsv1.Tool
	for _, each := range r.Tools {
		tools = append(tools, &modelsv1.Tool{Name: each.Name})
	}
	return &echomesh.ChatOptions{
		ConversationID:  r.ConversationID,
		Tier:            r.Tier,
		Speaker:         r.Speaker,
		Private:         r.Store != nil && !*r.Store,
		NoRecall:        r.Recall != nil && !*r.Recall,
		Detach:          r.Detach,
		ParentMessageID: r.Parent,
		Metadata:        r.Metadata,
		RequestID:       r.RequestID,
		MessageKey:      r.MessageKey,
		Instructions:    r.Instructions,
		History:         history,
		Tools:           tools,
		ToolChoice:      r.ToolChoice,
	}
}

// chat tells frames as they come; it leaves, or fails, after so many of text if told to.
func chat(ctx context.Context, user *echomesh.User, r request) (err error) {
	defer func() {
		if failed := recover(); failed != nil {
			err = fmt.Errorf("%v", failed)
		}
	}()
	texts := 0
	for frame, err := range user.Chat(ctx, r.Text, chatOptions(r)) {
		if err != nil {
			return err
		}
		told, _ := plain(reflect.ValueOf(frame)).(map[string]any)
		told["kind"] = kind(frame)
		say(r.ID, "frame", told)
		if _, ok := frame.(echomesh.Text); ok {
			texts++
		}
		if r.FailAfter > 0 && texts == r.FailAfter {
			panic("the caller's own error")
		}
		if r.LeaveAfter > 0 && texts == r.LeaveAfter {
			return nil
		}
	}
	return nil
}

func kind(frame echomesh.Frame) string {
	if _, ok := frame.(echomesh.MemoriesUsed); ok {
		return "memories"
	}
	return snake(reflect.TypeOf(frame).Name())
}

func collect[T any](items iter.Seq2[T, error]) ([]T, error) {
	all := []T{}
	for item, err := range items {
		if err != nil {
			return nil, err
		}
		all = append(all, item)
	}
	return all, nil
}
