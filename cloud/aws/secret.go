package aws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	secrettypes "github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"
)

var (
	// The service takes names of letters, digits and /_+=.@- and ARNs that end in six letters of its own.
	secretName = regexp.MustCompile(`^[a-zA-Z0-9/_+=.@-]{1,512}$`)
	secretARN  = regexp.MustCompile(`^arn:[a-z-]+:secretsmanager:([a-z0-9-]+):[0-9]{12}:secret:[a-zA-Z0-9/_+=.@-]{1,519}$`)
	// A name with a slash in it begins with one; a version or a label follows a colon.
	parameterName = regexp.MustCompile(`^(/[a-zA-Z0-9_./-]+|[a-zA-Z0-9_.-]+)(:[a-zA-Z0-9_.-]+)?$`)
	parameterARN  = regexp.MustCompile(`^arn:[a-z-]+:ssm:([a-z0-9-]+):[0-9]{12}:parameter/[a-zA-Z0-9_./-]+(:[a-zA-Z0-9_.-]+)?$`)
)

// leastVersionID is how long the id of a secret's version is at least: it is the request token of who
// made it, of 32 to 64 characters. What is shorter is a staging label.
const leastVersionID = 32

// Secret reads a secret of Secrets Manager, by name or ARN. version is a version's id or a staging label
// such as AWSPREVIOUS; empty means AWSCURRENT. It takes secretsmanager:GetSecretValue, and kms:Decrypt
// when the key is the account's own. A secret that is binary is returned as it is.
func Secret(ctx context.Context, o Options, id, version string) (string, error) {
	if m := secretARN.FindStringSubmatch(id); m != nil {
		if err := o.in(m[1]); err != nil {
			return "", err
		}
	} else if !secretName.MatchString(id) {
		return "", errors.New("want a secret's name, of letters, digits and / _ + = . @ -, or its ARN")
	}
	c, err := Load(ctx, o)
	if err != nil {
		return "", err
	}
	in := &secretsmanager.GetSecretValueInput{SecretId: &id}
	switch {
	case len(version) >= leastVersionID:
		in.VersionId = &version
	case version != "":
		in.VersionStage = &version
	}
	out, err := secretsmanager.NewFromConfig(c).GetSecretValue(ctx, in)
	var missing *secrettypes.ResourceNotFoundException
	switch {
	case errors.As(err, &missing):
		return "", because(fmt.Errorf("there is no such secret, or no such version of it, in %s", c.Region), err)
	case err != nil:
		return "", explainSecret(err)
	case out.SecretString == nil:
		return string(out.SecretBinary), nil
	}
	return *out.SecretString, nil
}

// Parameter reads a parameter of Systems Manager and decrypts it, by name, as in /orders/db/password, or
// by ARN; a version or a label may follow after a colon. It takes ssm:GetParameter, and kms:Decrypt when
// the parameter is a SecureString under the account's own key.
func Parameter(ctx context.Context, o Options, name string) (string, error) {
	if m := parameterARN.FindStringSubmatch(name); m != nil {
		if err := o.in(m[1]); err != nil {
			return "", err
		}
	} else if !parameterName.MatchString(name) {
		return "", errors.New("want a parameter's name, which begins with / when there is one in it, as in ssm:///orders/db/password, or its ARN")
	}
	c, err := Load(ctx, o)
	if err != nil {
		return "", err
	}
	out, err := ssm.NewFromConfig(c).GetParameter(ctx, &ssm.GetParameterInput{Name: &name, WithDecryption: aws.Bool(true)})
	var missing *ssmtypes.ParameterNotFound
	var version *ssmtypes.ParameterVersionNotFound
	switch {
	case errors.As(err, &missing):
		return "", because(fmt.Errorf("there is no such parameter in %s", c.Region), err)
	case errors.As(err, &version):
		return "", because(fmt.Errorf("there is no such version of the parameter in %s", c.Region), err)
	case err != nil:
		return "", explainSecret(err)
	case out.Parameter == nil:
		return "", errors.New("the service's answer holds no parameter")
	}
	return aws.ToString(out.Parameter.Value), nil
}

// in sets the region that an ARN names.
func (o *Options) in(region string) error {
	if o.Region != "" && o.Region != region {
		return fmt.Errorf("region=%s is not the ARN's region, %s: leave it out", o.Region, region)
	}
	o.Region = region
	return nil
}

// explainSecret returns an error in one line, which wraps err. The service's own words never hold a
// secret's value.
func explainSecret(err error) error {
	if explained := Explain(err); explained != nil {
		return explained
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		return because(fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage()), err)
	}
	var lost *net.OpError
	if errors.As(err, &lost) {
		return because(errors.New(lost.Error()), err)
	}
	return err
}
