package status_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

// The page and its calls stand beside the gateway, behind a password. Everybody who has one
// may look, and the operators may steer.
func Example() {
	gateway, err := limpet.NewGateway(balancer.Static("a=http://127.0.0.1:3000", "b=http://127.0.0.1:3001"), nil)
	if err != nil {
		panic(err)
	}
	operators := map[string]bool{"ada": true}
	page := status.New(gateway, &status.Options{Authorize: func(r *http.Request) bool {
		user, _, _ := r.BasicAuth() // the password was checked before
		return operators[user]
	}})
	defer page.Close()

	r := chi.NewRouter()
	r.With(middleware.BasicAuth("limpet", map[string]string{"ada": "lovelace", "bob": "ross"})).Mount("/limpet", page)
	r.Mount("/", gateway)

	for _, user := range [][2]string{{"ada", "lovelace"}, {"bob", "ross"}, {"eve", ""}} {
		req := httptest.NewRequest("POST", "/limpet/api/backends/a/drain", nil)
		req.SetBasicAuth(user[0], user[1])
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		var answer struct{ State, Error string }
		json.NewDecoder(w.Body).Decode(&answer)
		fmt.Printf("%s: %d %s%s\n", user[0], w.Code, answer.State, answer.Error)
	}
	// Output:
	// ada: 200 draining
	// bob: 403 you may look, but not steer: Authorize of the service refuses you
	// eve: 401
}
