#!/usr/bin/env bash
# Install a headless browser for the test of the web page into .cache/browser: once, without root, in a few seconds.
# If Chromium or Chrome is installed there is nothing to do; without npm the test is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" > /dev/null; then exit 0; fi
done
folder=$PWD/.cache/browser
if [[ -x $folder/chromium ]]; then exit 0; fi
if ! command -v npm > /dev/null; then echo "no browser and no npm: the test of the web page is skipped"; exit 0; fi
mkdir -p "$folder"
npm install --prefix "$folder/package" --no-audit --no-fund --loglevel=error --fetch-retries=1 \
    @sparticuz/chromium@147.0.0 > /dev/null || { echo "no browser: its package cannot be installed"; exit 0; }
cd "$folder/package"
# The package unpacks the browser into the folder for temporary files.
TMPDIR=$folder node --input-type=module \
    -e 'import browser from "@sparticuz/chromium"; await browser.executablePath()'
rm -rf "$folder/package"
