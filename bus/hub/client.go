package hub

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"net/http"
	"time"
)

//go:embed client.js
var client []byte

// Client returns a handler that serves the JavaScript client, an ES module without
// dependencies:
//
//	http.Handle("/limpet.js", hub.Client())
//
// A page uses it like this; the head of the file has the rest:
//
//	import { Connection } from '/limpet.js';
//
//	const chat = new Connection('/ws');
//	chat.addEventListener('message', ({ data, room }) => show(room, data));
//	chat.addEventListener('missed', ({ room }) => reload(room));
//	button.onclick = () => chat.send(input.value); // returns false, and sends nothing, while the server isn't there
//	chat.onask = async (question) => (await confirmed(question) ? 'yes' : 'no'); // answers Hub.Ask
//
// The client speaks [Protocol]. It comes back by itself after a random time that grows,
// says where it was in each room, and notices within two of [HandlerOptions].Ping that its
// connection is dead.
func Client() http.Handler {
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256(client))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache") // it is asked for each time, and sent when it has changed
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(client))
	})
}
