package azuretables

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
)

// mostPages bounds the answers of one query. One for both keys has one, as the service promises; a stand-in
// may have some that are empty.
const mostPages = 8

// get reads one entity; not ok: there is none. An error is a *fatalError, a *rowError, or one that may pass.
func (t *Table) get(ctx context.Context, partition, row string) (text []byte, ok bool, err error) {
	filter := "PartitionKey eq " + quote(partition) + " and RowKey eq " + quote(row)
	pager := t.client.NewListEntitiesPager(&aztables.ListEntitiesOptions{Filter: &filter, Select: t.fields.query})
	for range mostPages {
		// The SDK decodes numbers as float64, and an answer without a list as an empty one.
		var answer *http.Response
		if _, err := pager.NextPage(policy.WithCaptureResponse(ctx, &answer)); err != nil {
			return nil, false, t.explain(err)
		}
		body, err := runtime.Payload(answer)
		if err != nil {
			return nil, false, t.explain(err)
		}
		text, ok, err := t.fields.rowOf(body, partition, row)
		if err != nil || ok || !pager.More() {
			return text, ok, err
		}
	}
	return nil, false, fmt.Errorf("no end of the answer after %d pages", mostPages)
}

// busy reports whether the service has refused a question because of its rate.
func busy(err error) bool {
	var response *azcore.ResponseError
	return errors.As(err, &response) && (response.StatusCode == http.StatusServiceUnavailable || response.StatusCode == http.StatusTooManyRequests)
}

// quote makes a string of OData, in which a quote is doubled.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// fatalError is an error that no other key would be spared: somebody must mend something.
type fatalError struct{ told }

// rowError is an error of one key's answer. It says nothing about the service.
type rowError struct{ told }

// told reads as its text alone; the SDK's own runs over several lines, and may show a signature.
type told struct {
	text  string
	cause error
}

func (e *told) Error() string { return e.text }
func (e *told) Unwrap() error { return e.cause }

// explain makes one line of an error, without the address, which may hold a signature.
func (t *Table) explain(err error) error {
	var response *azcore.ResponseError
	if errors.As(err, &response) {
		text := fmt.Sprintf("%s (HTTP %d)", response.ErrorCode, response.StatusCode)
		if response.ErrorCode == "" {
			text = fmt.Sprintf("HTTP %d", response.StatusCode)
		}
		switch response.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return &fatalError{told{text + ": access denied: reading needs the role Storage Table Data Reader, or a key or signature that permits queries", err}}
		case http.StatusNotFound:
			return &fatalError{told{text + ": there is no such table: create it, or mend its name, account= or endpoint=", err}}
		case http.StatusBadRequest, http.StatusRequestURITooLong:
			return &rowError{told{text + ": the service does not take the key", err}}
		}
		return &told{text, err}
	}
	if errors.Is(err, errTooLarge) {
		return malformed("%v", errTooLarge)
	}
	var marked interface{ NonRetriable() }
	if errors.As(err, &marked) && strings.Contains(err.Error(), "Credential") {
		return &fatalError{told{"no Azure credentials: run az login, run under a managed identity, or set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN", err}}
	}
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	return &told{strings.Join(strings.Fields(err.Error()), " "), err}
}
