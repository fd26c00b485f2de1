package nats_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	natsbus "github.com/limpet-go/limpet/bus/nats"
)

// A subscription to a stream that is deleted and made again gets a Gap, and then what comes.
func TestJetStreamMadeAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	conn := connect(t, s.ClientURL())
	b := &natsbus.JetStream{Conn: conn, Timeout: patience}
	sub := subscribe(t, b, "a")
	publish(t, b, "a", "1", "2", "3")
	want(t, sub, "1", "2", "3")
	js, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream("LIMPET"); err != nil {
		t.Fatal(err)
	}
	other := &natsbus.JetStream{Conn: conn, Timeout: patience}
	publish(t, other, "a", "in between")
	if gap := wantGap(t, sub); gap.Lost != -1 || !slices.Equal(gap.Topics, []string{"a"}) {
		t.Errorf("%+v", gap)
	}
	publish(t, b, "a", "4", "5", "6", "7")
	want(t, sub, "4", "5", "6", "7")
	late, err := b.SubscribeFrom(t.Context(), map[string]string{"a": "1000"}) // of the stream before
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	wantGap(t, late)
	publish(t, b, "a", "8")
	want(t, late, "8")
	want(t, sub, "8")
}

// A subscription to a stream that has lost its end, and has gone on beyond it, gets a Gap: the
// numbers of what was lost are those of other messages now.
func TestJetStreamLostEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startServer(t, &server.Options{StoreDir: dir})
	conn := connect(t, s.ClientURL(), nats.ReconnectWait(300*time.Millisecond)) // the others are there first
	b := &natsbus.JetStream{Conn: conn, Timeout: 9 * time.Second}
	publish(t, b, "a", "1", "2", "3")
	before := t.TempDir()
	s = restart(t, s, func() {
		if err := os.CopyFS(before, os.DirFS(dir)); err != nil {
			t.Error(err)
		}
	})
	sub := subscribe(t, b, "a")
	publish(t, b, "a", "4", "5", "6")
	want(t, sub, "4", "5", "6")
	s = restart(t, s, func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		if err := os.CopyFS(dir, os.DirFS(before)); err != nil {
			t.Error(err)
		}
	})
	other := &natsbus.JetStream{Conn: connect(t, s.ClientURL()), Timeout: patience}
	publish(t, other, "a", "another 4", "another 5", "another 6", "another 7")
	wantGap(t, sub)
	publish(t, other, "a", "end")
	for data := ""; data != "end"; { // what was sent before the Gap may come behind it
		var err error
		if data, err = next(t, sub); err != nil {
			t.Fatal(err)
		}
	}
}

// A purge takes what is there, and the stream counts on: nothing was missed by who was in step.
func TestJetStreamPurged(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	conn := connect(t, s.ClientURL())
	b := &natsbus.JetStream{Conn: conn, Timeout: patience}
	sub := subscribe(t, b, "a")
	publish(t, b, "a", "1", "2")
	want(t, sub, "1", "2")
	js, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := js.PurgeStream("LIMPET"); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "a", "3")
	want(t, sub, "3")
	restart(t, s, nil)
	publish(t, b, "a", "4")
	want(t, sub, "4")
}
