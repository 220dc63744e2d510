/** What `load_charts.ts` loads. */
export {blockPictureChart, MARK_COLOURS} from './block_picture_chart';
export {heatMapChart} from './heat_map_chart';
export {lineSwatch, timeChart} from './time_chart';
