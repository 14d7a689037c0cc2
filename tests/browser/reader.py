"""What the scenes of the pages share: a service with users and jobs, and somebody at a browser."""

import pathlib
import sys

from axe_playwright_python.sync_playwright import Axe

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import LedgerService, Processes

JOBMETER = sys.argv[1]
BURN = "while True: pass"
# What a busy machine may take to show a change, in ms.
PATIENCE_MS = 40_000


class Service(LedgerService):
    """With keys for two users and an administrator, and jobs of theirs."""

    def __init__(self, folder):
        super().__init__(JOBMETER, folder)
        self.jobs = Processes(folder)
        self.keys = {"admin": self.admin_key.read_text().strip()}
        for user in ("ann", "bob"):
            self.keys[user] = self.key(user, "--user", user, "key", "create", user, "--scope", "read", "--only-user").read_text().strip()

    def start_job(self, user, job, *command):
        return self.jobs.start(JOBMETER, "--user", user, "run", "-q", "--job", job, "--", *command, name=job, env=self.environment)


class Reader:
    """Somebody at a browser. What the console or the network says that it should not is a failure."""

    def __init__(self, browser, service, url=None, **options):
        self.service, self.url = service, url or service.url
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.wrong = []
        self.page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.seen(request.url))

    def seen(self, url):
        if not url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"a request to {url}")

    def sign_in(self, user):
        self.page.goto(self.url)
        self.page.get_by_label("Key").fill(self.service.keys[user])
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/jobs")

    def accessible(self):
        found = Axe().run(self.page)
        assert found.violations_count == 0, f"{self.page.url}: {found.generate_report()}"

    def nothing_wrong(self):
        assert not self.wrong, self.wrong
