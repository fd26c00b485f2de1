package middleware

import (
	"net/http"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/lull"
)

// A node may answer a message by a poll before it answers the POST: then nothing waits for
// an answer any more.
func TestAnswerBeforeTheEndOfThePOST(t *testing.T) {
	s := polls{began: time.Now()}
	post, get := poll{out: &http.Request{Method: "POST"}}, poll{out: &http.Request{Method: "GET"}}
	var l lull.Lull
	get.begins(&s, &l)
	post.begins(&s, &l)
	if l.Answered {
		t.Error("answered before the answer")
	}
	get.ends(&s, &l, true)
	post.ends(&s, &l, true)
	if !l.Answered {
		t.Error("the POST's own end made the answer forgotten")
	}
	post.begins(&s, &l)
	post.ends(&s, &l, true)
	get.ends(&s, &l, false)
	if l.Answered {
		t.Error("answered by a poll that failed")
	}
}
