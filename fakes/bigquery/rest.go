package bigquery

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	api "google.golang.org/api/bigquery/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// rest answers the calls that make and describe data sets and tables.
func (s *Server) rest(w http.ResponseWriter, r *http.Request) {
	path := strings.Trim(strings.TrimPrefix(r.URL.Path, "/bigquery/v2"), "/")
	fault := s.taken(REST, path)
	if err := fault.before(r.Context()); err != nil {
		refuse(w, httpCode(err), status.Convert(err).Message())
		return
	}
	out, code, err := s.called(r, strings.Split(path, "/"))
	if lost := fault.after(r.Context()); lost != nil {
		refuse(w, http.StatusServiceUnavailable, status.Convert(lost).Message())
		return
	}
	if err != nil {
		refuse(w, code, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // a client that has gone misses it
}

func httpCode(err error) int {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.ResourceExhausted:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.NotFound:
		return http.StatusNotFound
	}
	return http.StatusServiceUnavailable
}

func refuse(w http.ResponseWriter, code int, message string) {
	reasons := map[int]string{400: "invalid", 401: "authError", 403: "accessDenied", 404: "notFound", 409: "duplicate", 501: "notImplemented", 503: "backendError"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{ // a client that has gone misses it
		"code": code, "message": message, "errors": []any{map[string]any{"message": message, "reason": reasons[code], "domain": "global"}},
	}})
}

// called does the call whose path is projects/P/datasets[/D[/tables[/T]]].
func (s *Server) called(r *http.Request, path []string) (any, int, error) {
	n := len(path)
	known := n >= 3 && n <= 6 && path[0] == "projects" && path[2] == "datasets" && (n < 5 || path[4] == "tables")
	switch {
	case known && n == 3 && r.Method == http.MethodPost:
		var in api.Dataset
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.DatasetReference == nil || in.DatasetReference.DatasetId == "" {
			return nil, http.StatusBadRequest, errors.Join(errors.New("the data set cannot be read, or has no name"), err)
		}
		return s.insertDataset(path[1], in.DatasetReference.DatasetId)
	case known && n == 4 && r.Method == http.MethodGet:
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.sets[strings.Join(path, "/")] {
			return nil, http.StatusNotFound, fmt.Errorf("Not found: Dataset %s:%s", path[1], path[3])
		}
		return dataset(path[1], path[3]), 0, nil
	case known && n == 5 && r.Method == http.MethodPost:
		var in api.Table
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.TableReference == nil || in.Schema == nil {
			return nil, http.StatusBadRequest, errors.Join(errors.New("the table cannot be read, or has no name or schema"), err)
		}
		return s.insertTable(path[1], path[3], &in)
	case known && n == 6 && r.Method == http.MethodGet:
		s.mu.Lock()
		defer s.mu.Unlock()
		t := s.tables[strings.Join(path, "/")]
		if t == nil {
			return nil, http.StatusNotFound, fmt.Errorf("Not found: Table %s:%s.%s", path[1], path[3], path[5])
		}
		return t.resource(), 0, nil
	}
	return nil, http.StatusNotImplemented, fmt.Errorf("%s %s is not implemented", r.Method, r.URL.Path)
}

func dataset(project, id string) *api.Dataset {
	return &api.Dataset{Kind: "bigquery#dataset", Id: project + ":" + id, Location: "US",
		DatasetReference: &api.DatasetReference{ProjectId: project, DatasetId: id}}
}

func (s *Server) insertDataset(project, id string) (any, int, error) {
	path := "projects/" + project + "/datasets/" + id
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sets[path] {
		return nil, http.StatusConflict, fmt.Errorf("Already Exists: Dataset %s:%s", project, id)
	}
	s.sets[path] = true
	return dataset(project, id), 0, nil
}

func (s *Server) insertTable(project, set string, in *api.Table) (any, int, error) {
	t := Table{Name: project + "." + set + "." + in.TableReference.TableId, Columns: columnsOf(in.Schema.Fields)}
	if in.TableConstraints != nil && in.TableConstraints.PrimaryKey != nil {
		t.PrimaryKey = in.TableConstraints.PrimaryKey.Columns
	}
	path, err := pathOf(t.Name)
	if err != nil {
		return nil, http.StatusBadRequest, err
	}
	s.mu.Lock()
	parent, there := s.sets["projects/"+project+"/datasets/"+set], s.tables[path] != nil
	s.mu.Unlock()
	switch {
	case !parent:
		return nil, http.StatusNotFound, fmt.Errorf("Not found: Dataset %s:%s", project, set)
	case there:
		return nil, http.StatusConflict, fmt.Errorf("Already Exists: Table %s", t.Name)
	}
	if err := s.CreateTable(t); err != nil {
		return nil, http.StatusBadRequest, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tables[path].resource(), 0, nil
}

// resource describes a table as REST does.
func (t *table) resource() *api.Table {
	p := strings.Split(t.path, "/")
	out := &api.Table{Kind: "bigquery#table", Type: "TABLE", Id: p[1] + ":" + p[3] + "." + p[5], Location: "US",
		TableReference: &api.TableReference{ProjectId: p[1], DatasetId: p[3], TableId: p[5]},
		Schema:         &api.TableSchema{Fields: fieldsOf(t.Columns)}}
	if len(t.PrimaryKey) > 0 {
		out.TableConstraints = &api.TableConstraints{PrimaryKey: &api.TableConstraintsPrimaryKey{Columns: t.PrimaryKey}}
	}
	return out
}

func columnsOf(fields []*api.TableFieldSchema) []Column {
	out := make([]Column, len(fields))
	for i, f := range fields {
		out[i] = Column{Name: f.Name, Type: f.Type, Mode: f.Mode, Fields: columnsOf(f.Fields)}
	}
	return out
}

// named are the types whose names in REST are those of the first dialect.
var named = map[string]string{"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}

func fieldsOf(columns []Column) []*api.TableFieldSchema {
	out := make([]*api.TableFieldSchema, len(columns))
	for i, c := range columns {
		out[i] = &api.TableFieldSchema{Name: c.Name, Type: c.Type, Mode: c.Mode, Fields: fieldsOf(c.Fields)}
		if name := named[c.Type]; name != "" {
			out[i].Type = name
		}
	}
	return out
}
