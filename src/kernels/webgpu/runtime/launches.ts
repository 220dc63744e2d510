/** What has to be known of a program so that it can be cut into launches. */
export interface ExpectedWork {
  /** Milliseconds that the program should take. */
  time: number;
  /** Work of the last workgroup as a share of that of the first: from the one to the other it declines evenly. */
  lightest: number;
}

/** Work of workgroups that differ little, or whose heavy ones may be anywhere: then `time` is that of as many heavy ones. */
export const evenWork = (time = 0): ExpectedWork => ({time, lightest: 1});

/** Longest that one launch, or the launches of one submit, should hold a GPU, in milliseconds: what else the page draws waits for it. */
export const longestLaunch = 50;

/**
 * The first workgroup of each launch, and at the end the number of workgroups. Launches have equal shares of the work, not of the
 * workgroups: each ends in a time in which fewer and fewer workgroups run, so that there should be few.
 */
export function launchBounds(workgroups: number, {time, lightest}: ExpectedWork): number[] {
  // Whole workgroups: a launch may have one more than its share.
  const heaviest = ((time / workgroups) * 2) / (1 + lightest);
  const share = time <= longestLaunch ? longestLaunch : Math.max(longestLaunch - heaviest, longestLaunch / 2);
  const launches = Math.min(Math.max(1, Math.ceil(time / share)), workgroups);
  return Array.from({length: launches + 1}, (_, i) => Math.round(workgroups * partWithWork(i / launches, lightest)));
}

/** Part of the workgroups, from the first on, that has a share of the work. */
function partWithWork(share: number, lightest: number): number {
  const work = (share * (1 + lightest)) / 2;
  // The part x for which x − (1 − lightest) · x² / 2 is that work.
  return (2 * work) / (1 + Math.sqrt(1 - 2 * (1 - lightest) * work));
}
