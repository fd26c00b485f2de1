package main

import (
	"crypto/rand"
	"log"
	"net/http"

	socketio "github.com/googollee/go-socket.io"
	"github.com/googollee/go-socket.io/engineio"
)

// node is a Socket.IO server. Its Adapter method joins the rooms of several
// nodes over Redis.
func node(name string) http.Handler {
	server := socketio.NewServer(&engineio.Options{SessionIDGenerator: randomID{}})
	server.OnConnect("/", func(socketio.Conn) error { return nil })
	server.OnError("/", func(_ socketio.Conn, err error) { log.Printf("%s: %v", name, err) })
	server.OnEvent("/", "who", func(socketio.Conn) string { return name })
	server.OnEvent("/", "echo", func(_ socketio.Conn, text string) string { return text })
	go server.Serve()

	mux := http.NewServeMux()
	mux.Handle("/socket.io/", server)
	return mux
}

// randomID makes session IDs that nobody can guess and that no two nodes have in
// common. Those of the server itself are 1, 2, 3, at each node.
type randomID struct{}

func (randomID) NewID() string { return rand.Text() }
