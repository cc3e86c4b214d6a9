import pytest

from transforms.errors import UsageError
from transforms.url_secrets import check_no_secret, check_no_secret_flag, check_no_secret_option, hide_secrets

WITH = {
  "ftp://user:pa55@host/a": "ftp://user:***@host/a",
  "sftp://user:pa55@host:22/a@b": "sftp://user:***@host:22/a@b",
  "smb://group;user:pa55@host/a": "smb://group;user:***@host/a",
  "https://ghp_pa55@host/a": "https://***@host/a",
  "gist://pa55@id/a": "gist://***@id/a",
  "s3://KEY:pa55@bucket/a": "s3://***@bucket/a",
  "s3://KEY:pa/55@bucket/a": "s3://***@bucket/a",
  "gs://KEY:pa55@bucket": "gs://***@bucket",
  "zip://a.txt::https://user:pa55@host/a.zip": "zip://a.txt::https://***@host/a.zip",
  "https://host/a?X-Amz-Date=1&X-Amz-Signature=pa55&b=2": "https://host/a?X-Amz-Date=1&X-Amz-Signature=***&b=2",
  "https://host/a?X-Amz-Security-Token=pa55": "https://host/a?X-Amz-Security-Token=***",
  "https://host/a?X-Goog-Credential=pa55": "https://host/a?X-Goog-Credential=***",
  "https://host/a?AWSAccessKeyId=pa55": "https://host/a?AWSAccessKeyId=***",
  "https://a.blob.example/a?sv=2024&sig=pa55": "https://a.blob.example/a?sv=2024&sig=***",
  "https://host/a?api_key=pa55;b=1": "https://host/a?api_key=***;b=1",
  "https://host/a?key=pa55": "https://host/a?key=***",
  "https://host/a?subscription-key=pa55": "https://host/a?subscription-key=***",
  "https://host/a#access_token=pa55": "https://host/a#access_token=***",
  "abfs://c@host/a?connection_string=pa55": "abfs://c@host/a?connection_string=***",
  "ftp://user:pa@55@host/a@b": "ftp://user:***@host/a@b",
  "https://pa@55@host/a": "https://***@host/a",
  "s3n://KEY:pa/55@bucket/a": "s3n://***@bucket/a",
}
WITHOUT = [
  *("/a/b:c@d?key=1", "a.jsonl", "C:/a@b", "s3://bucket/a/b-*.jsonl", "s3://bucket/a:b/c", "gs://bucket/a?.txt"),
  *("hdfs://user@name:9000/a", "ftp://user@host/a", "abfs://container@account.dfs.core.windows.net/a"),
  *("http://host:8080/a@b", "https://host/a?id=5&monkey=1&design=2", "github://google:bert@master/a.txt"),
  *("s3://bucket/a?versionId=3", "zip://*.txt::s3://bucket/a.zip", "memory://a@b", "http://[::1]:80/a"),
]


@pytest.mark.parametrize("url", WITH)
def test_a_url_with_a_secret_is_refused_without_it(url):
  with pytest.raises(UsageError) as caught:
    check_no_secret(url, "--input")
  assert str(caught.value).startswith(f"--input {WITH[url]}: has a secret in it, which would be recorded; leave it out")
  assert hide_secrets(f"'{url}' cannot be read: {url}") == f"'{WITH[url]}' cannot be read: {WITH[url]}"


@pytest.mark.parametrize("url", WITHOUT)
def test_a_url_without_one_is_let_through(url):
  check_no_secret(url)
  if "://" in url:
    assert hide_secrets(url) == url


@pytest.mark.parametrize(
  "options",
  [
    *({"secret": "x"}, {"key": "x"}, {"token": "x"}, {"client_kwargs": {"aws_secret_access_key": "x"}}),
    *({"account_key": "x"}, {"connection_string": "x"}, {"private_key": "x"}),
  ],
)
def test_options_that_are_credentials_are_refused(options):
  with pytest.raises(UsageError, match=r"^storage option '\w+' is a credential, which would be sent along"):
    check_no_secret_option(options)


def test_other_options_are_let_through():
  check_no_secret_option({"anon": True, "client_kwargs": {"endpoint_url": "http://a"}, "requester_pays": False})


@pytest.mark.parametrize(
  "flag",
  [
    *("--azure_connection_string=pa55", "-s3_secret_access_key=pa55", "--flink_master=https://user:pa55@host:8081"),
    *('--environment_config={"env": {"AWS_SECRET_ACCESS_KEY": "pa55"}}', '{"env": {"AWS_SECRET_ACCESS_KEY": "pa55"}}'),
    *("--sdk_location=https://pa55@host/a.tgz", "https://host/a.tgz?sig=pa55"),
  ],
)
def test_a_flag_of_an_engine_with_a_secret_is_refused_without_it(flag):
  with pytest.raises(UsageError, match=r"^behind '--': .*(credential|secret)") as caught:
    check_no_secret_flag(flag, "behind '--':")
  assert "pa55" not in str(caught.value)


@pytest.mark.parametrize(
  "flag",
  [
    *("--flink_master=host:8081", "--parallelism=8", "8", "--dataflow_kms_key=projects/p", "--experiments=a=b"),
    *('--environment_config={"command": "boot"}', "--no_use_public_ips", "--temp_location=gs://bucket/temp", "--x=[1]"),
  ],
)
def test_other_flags_are_let_through(flag):
  check_no_secret_flag(flag, "behind '--':")
