// Draws the page; the page of a run that goes on asks its server for news.
startTheme();
readAddress();
listContents();
draw();
explainTerms();

/** Load the page again once the files of the run have changed, but not while it is read; the address keeps the view. */
async function watch() {
  const settled = !DATA.chart || performance.now() > 20000;
  const read = document.visibilityState !== "visible" || getSelection().toString() || document.activeElement?.matches("input, select");
  try {
    const stamp = await (await fetch("stamp", { cache: "no-store" })).text();
    byId("live").textContent = "live";
    if (stamp !== DATA.stamp && settled && !read) return location.reload();
  } catch {
    byId("live").textContent = "the server has stopped";
  }
  setTimeout(watch, 3000);
}

if (DATA.stamp) watch();
if (state.instance || state.picks?.length) byId("episodes")?.scrollIntoView();
