// Stream_a_reply streams a reply and shows the memories it rests on; Ctrl-C cancels it.
//
//	go run ./examples/stream_a_reply ADDRESS API_KEY "Hello there"
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"echomesh"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, apiKey, text string) error {
	client, err := echomesh.Connect(address, echomesh.Options{APIKey: apiKey})
	if err != nil {
		return err
	}
	defer client.Close()
	for frame, err := range client.Chat(ctx, text, nil) {
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case echomesh.MemoriesUsed:
			for _, memory := range frame.Memories[:min(3, len(frame.Memories))] {
				fmt.Printf("[%s: %s]\n", memory.Speaker, memory.Text)
			}
		case echomesh.Text:
			fmt.Print(frame.Text)
		case echomesh.Final:
			fmt.Printf("\n%s after %v\n", frame.FinishReason, frame.Total)
		}
	}
	return nil
}
