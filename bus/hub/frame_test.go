package hub_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/limpet-go/limpet/bus/hub"
)

func TestFrameBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size int
		head string // RFC 6455, section 5.2; of a text
	}{
		{0, "\x81\x00"},
		{125, "\x81\x7d"},
		{126, "\x81\x7e\x00\x7e"},
		{65535, "\x81\x7e\xff\xff"},
		{65536, "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"},
	} {
		t.Run(fmt.Sprint(tt.size), func(t *testing.T) {
			t.Parallel()
			payload := bytes.Repeat([]byte("x"), tt.size)
			text, binary := hub.Text(payload), hub.Binary(payload)
			want := append([]byte(tt.head), payload...)
			if got := text.Bytes(); !bytes.Equal(got, want) {
				t.Errorf("text: %q…", got[:min(len(got), 12)])
			}
			want[0] = 0x82
			if got := binary.Bytes(); !bytes.Equal(got, want) || !binary.IsBinary() || text.IsBinary() {
				t.Errorf("binary: %q…", got[:min(len(got), 12)])
			}
			if again := text.Bytes(); &again[0] != &text.Bytes()[0] {
				t.Error("built twice")
			}
		})
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	f, err := hub.JSON(map[string]int{"order": 7})
	if err != nil || f.IsBinary() || string(f.Payload()) != `{"order":7}` {
		t.Errorf("%v, %v", f, err)
	}
	if f, err := hub.JSON(func() {}); err == nil || f != nil {
		t.Error("a function is JSON")
	}
}
