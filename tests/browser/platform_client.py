#!/usr/bin/env python3
"""The platform's own client reads the credits: platform_client.py URL KEY_FILE."""

import sys

from mostlyai.sdk import MostlyAI

key = open(sys.argv[2]).read().strip()
me = MostlyAI(base_url=sys.argv[1], api_key=key, quiet=True).me()
credits = me.usage.credits
assert me.name == "ann" and credits.limit == 5 and credits.current == 0, me
assert credits.period_start < credits.period_end, me
print(f"mostlyai: {credits.current} of {credits.limit} credits from {credits.period_start} to {credits.period_end}")
