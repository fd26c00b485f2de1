package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// Each generation's nodes pass on what the example sends.
func TestEmit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		version interop.Version
		adapter string // of the nodes
		flags   []string
	}{
		{"legacy", interop.V2, "", []string{"-adapter", "legacy"}},
		{"legacy3", interop.V3, "", []string{"-adapter", "legacy3"}},
		{"current", interop.V4, "", nil},
		{"sharded", interop.V4, "sharded-dynamic", []string{"-adapter", "sharded"}},
		{"static", interop.V4, "sharded-static", []string{"-adapter", "sharded", "-mode", "static"}},
		{"streams", interop.V4, "streams", []string{"-adapter", "streams"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cluster := interop.StartAdapter(t, tt.version, 2, tt.adapter)
			clients := interop.StartClients(t, tt.version)
			names := []string{"ann", "bob"}
			for i, name := range names {
				clients.Open(t, interop.Client{Name: name, URL: cluster.Nodes[i].URL() + "/chat", Options: map[string]any{
					"transports": []string{"websocket"}, "reconnection": false,
				}})
			}
			clients.Hear(t, names, "news")
			emit := func(args ...string) (out string) {
				t.Helper()
				var b strings.Builder
				if err := run(t.Context(), &b, slices.Concat([]string{"-redis", "redis://" + cluster.Redis.Addr, "-nsp", "chat"}, tt.flags, args)); err != nil {
					t.Fatal(err)
				}
				return b.String()
			}
			// got waits for an event of a client with this first argument.
			got := func(client string, first any) (args []any) {
				t.Helper()
				clients.Await(t, fmt.Sprintf("%v for %s", first, client), func(events []interop.Event) bool {
					return slices.ContainsFunc(events, func(e interop.Event) bool {
						args = e.Args
						return e.Event == "got" && e.Client == client && e.Args[0] == first
					})
				})
				return args
			}
			emit("news", `1.5`, `{"text": "größer", "n": [1, null]}`, "true")
			want := []any{1.5, map[string]any{"text": "größer", "n": []any{1.0, nil}}, true}
			for _, name := range names {
				if args := got(name, 1.5); !reflect.DeepEqual(args, want) {
					t.Errorf("%s got %v, want %v", name, args, want)
				}
			}
			ids := make(map[string]string)
			for _, e := range clients.Events("connect") {
				ids[e.Client] = e.Socket
			}
			emit("-to", ids["ann"], "-join", "vip")
			heard := func() bool {
				return slices.ContainsFunc(clients.Events("got"), func(e interop.Event) bool { return e.Args[0] == "for vips" })
			}
			for i, deadline := 0, time.Now().Add(30*time.Second); !heard(); i++ { // the node may have to subscribe for the room
				emit("-to", "vip", "news", `"for vips"`)
				emit("-to", ids["ann"], "news", strconv.Itoa(i))
				got("ann", float64(i))
				if time.Now().After(deadline) {
					t.Fatal("ann isn't in the room")
				}
			}
			if all := emit("-fetch"); strings.Count(all, "\n") != 2 || !strings.Contains(all, ids["ann"]) || !strings.Contains(all, ids["bob"]) {
				t.Errorf("all sockets are %s", all)
			}
			if vips := emit("-to", "vip", "-fetch"); !strings.Contains(vips, `"id":"`+ids["ann"]+`"`) || strings.Contains(vips, ids["bob"]) {
				t.Errorf("the room's sockets are %s", vips)
			}
			emit("-to", ids["ann"], "-leave", "vip")
			emit("-to", ids["bob"], "-disconnect")
			clients.Await(t, "bob's end", func(events []interop.Event) bool {
				return slices.ContainsFunc(events, func(e interop.Event) bool {
					return e.Event == "disconnect" && e.Client == "bob" && e.Reason == "io server disconnect"
				})
			})
		})
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"there is nothing to do":      nil,
		"-redis":                      {"-redis", "http://example.com", "ev"},
		"-redis: bus: ":               {"-redis", "redis://:secret@example.com:port", "ev"},
		"-adapter other":              {"-adapter", "other", "ev"},
		"-mode other":                 {"-adapter", "sharded", "-mode", "other", "ev"},
		"argument 2 isn't JSON: text": {"ev", "1", "text"},
		`"connect": reserved`:         {"connect"},
		"Socket.IO 2 can't":           {"-adapter", "legacy", "-to", "room", "-leave", "other"},
	} {
		if err := run(t.Context(), io.Discard, args); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %s", args, err, name)
		}
	}
	if err := run(t.Context(), io.Discard, []string{"-h"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}
