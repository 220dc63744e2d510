/** The charts with the library that draws them, loaded once there is something to draw. */
export {blockPictureChart, MARK_COLOURS} from './block_picture_chart';
export {heatMapChart} from './heat_map_chart';
export {styleOf, timeChart} from './time_chart';
