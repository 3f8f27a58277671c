// Remember_and_ask tells the companion something as one of your end users, and asks about it.
//
//	go run ./examples/remember_and_ask ADDRESS API_KEY
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"echomesh"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, apiKey string) error {
	client, err := echomesh.Connect(address, echomesh.Options{APIKey: apiKey})
	if err != nil {
		return err
	}
	defer client.Close()
	user := client.AsUser("example-user")
	if _, err := user.Remember(ctx, "My bicycle is chained to the blue fence.", nil); err != nil {
		return err
	}
	text, final, err := user.Reply(ctx, "Where is my bicycle?", nil)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n(%s, %v)\n", text, final.Model, final.Total)
	return nil
}
