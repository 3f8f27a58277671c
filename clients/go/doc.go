// Package echomesh is the client of Echomesh, the backend of AI companions and assistants.
//
//	client, err := echomesh.Connect("127.0.0.1:7400", echomesh.Options{APIKey: key})
//	...
//	defer client.Close()
//	for frame, err := range client.Chat(ctx, "Hello!", nil) {
//		if err != nil {
//			return err
//		}
//		if text, ok := frame.(echomesh.Text); ok {
//			fmt.Print(text.Text)
//		}
//	}
//
// Every failure of a call is an *Error, whose Reason is a value of echomesh.common.v1.ErrorReason.
package echomesh

// Version of this package; it is that of the contracts it was generated from.
const Version = "0.1.0"
